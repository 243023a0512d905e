//! `cross.toml`: what the real `cross` makes of it, with a stand-in for the
//! container engine that records what it is asked to run. Nothing is built.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where `make tools-cross` puts the pinned version, under the workspace.
const INSTALLED: &str = "target/tools/bin/cross";

/// Records its arguments, one a line, and does nothing.
const ENGINE: &str = "#!/bin/sh\nfor word; do printf '%s\\n' \"$word\"; done >>\"$(dirname \"$0\")/asked\"\n";

/// As if the targets were installed. The real one is never reached: asked for a
/// target, it would go and change this machine's toolchain.
const RUSTUP: &str = "#!/bin/sh
case \"$*\" in
*'toolchain list'*) rustc -vV | sed -n 's/^host: /stable-/p' ;;
*'target list'*)
    for target in aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf arm-unknown-linux-gnueabihf \"$(rustc -vV | sed -n 's/^host: //p')\"; do
        echo \"$target (installed)\"
    done ;;
*'component list'*) echo 'rust-src (installed)' ;;
*) echo \"a stand-in: $*\" >&2; exit 1 ;;
esac
";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn cross() -> Option<PathBuf> {
    let installed = workspace().join(INSTALLED);
    if !installed.is_file() {
        eprintln!("SKIPPED: no {INSTALLED}: make tools-cross");
        return None;
    }
    Some(installed)
}

/// What the engine is asked to run for a target: its arguments.
fn asked(cross: &Path, target: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("docker", ENGINE), ("rustup", RUSTUP)] {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let output = Command::new(cross)
        .args(["build", "--profile", "device", "--target", target, "-p", "farm-agent"])
        .current_dir(workspace())
        .env("PATH", path)
        .env("CROSS_CONFIG", "cross.toml")
        .env("CROSS_CONTAINER_ENGINE", dir.path().join("docker"))
        .env_remove("CARGO_TARGET_DIR")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{target}: {said}");
    // Cross only warns about keys that it does not know.
    assert!(!said.contains("unused key"), "{target}: {said}");
    let record =
        fs::read_to_string(dir.path().join("asked")).unwrap_or_else(|e| panic!("{target}: {e}: {said}"));
    record.lines().map(str::to_owned).collect()
}

#[test]
fn cross_runs_the_build_of_each_target_in_its_image() {
    let Some(cross) = cross() else { return };
    let config: toml::Table = fs::read_to_string(workspace().join("cross.toml")).unwrap().parse().unwrap();
    let targets = config["target"].as_table().unwrap();
    assert_eq!(targets.len(), 3, "{targets:?}");
    for (target, settings) in targets {
        let image = settings["image"].as_str().unwrap();
        assert!(image.contains(target.as_str()) && image.contains(':'), "an image with its version: {image}");
        let asked = asked(&cross, target, &[]);
        let at = asked.iter().position(|word| word == image);
        let at = at.unwrap_or_else(|| panic!("{target}: not in {image}: {asked:#?}"));
        assert_eq!(asked[at + 1..at + 3], ["sh", "-c"]);
        let command = &asked[at + 3];
        let wanted = format!("cargo build --profile device --target {target} -p farm-agent");
        assert!(command.contains(&wanted), "{command}");
        for name in ["SOURCE_DATE_EPOCH", "CARGO_PROFILE_DEVICE_LTO"] {
            let passed = asked.windows(2).any(|pair| pair[0] == "-e" && pair[1] == name);
            assert!(passed, "{target}: {name} does not reach the build: {asked:#?}");
        }
    }
}
