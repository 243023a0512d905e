//! What goes on the card and on servers, where it was built.

use std::path::{Path, PathBuf};

use super::part::Part;
use super::table::{Figure, Row, Unit};
use super::trouble::Trouble;
use crate::harness::binary;

/// The design's ceiling for the agent on aarch64, MB.
const BUDGET: f64 = 5.0;

/// Each with its profile, which is the name of a directory.
const PROGRAMS: [(&str, &str); 2] = [("device", "farm-agent"), ("server", "farm-broker")];

pub(super) fn measure(part: &mut Part) -> Result<(), Trouble> {
    let agent = binary("farm-agent")?;
    let target = agent.parent().and_then(Path::parent).unwrap_or_else(|| Path::new("."));
    let mut found = false;
    for (triple, dir) in directories(target) {
        for (profile, program) in PROGRAMS {
            let Ok(meta) = dir.join(profile).join(program).metadata() else { continue };
            found = true;
            let mut figure = Figure::new("", meta.len() as f64 / 1e6, Unit::Megabytes);
            if program == "farm-agent" && triple.starts_with("aarch64") {
                figure = figure.at_most(BUDGET);
            }
            part.push(Row::new(format!("{program}, {triple}"), vec![figure]));
        }
    }
    if !found {
        let reason = "none was built: make card, make cross";
        part.push(Row::missing("farm-agent", reason));
    }
    Ok(())
}

/// Where profiles have their directories: `target` and, by `image/cross`,
/// `target/cross/TRIPLE`.
fn directories(target: &Path) -> Vec<(String, PathBuf)> {
    let mut all = vec![(std::env::consts::ARCH.to_owned(), target.to_owned())];
    // Without the directory there is nothing in it.
    let entries = std::fs::read_dir(target.join("cross")).into_iter().flatten().flatten();
    for entry in entries {
        let triple = entry.file_name().to_string_lossy().into_owned();
        let short = triple.split('-').next().unwrap_or(&triple).to_owned();
        all.push((short, entry.path()));
    }
    all.sort();
    all
}
