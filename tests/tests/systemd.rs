//! The units: that systemd understands them, and how confined they are.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// The most that `systemd-analyze security` may say, of 10.
const EXPOSURE: f64 = 1.5;

/// Keys that systemd learned with its version 254; older ones pass over them.
const NEWER: [&str; 2] = ["RestartSteps", "RestartMaxDelaySec"];

fn analyze(arguments: &[&str]) -> Option<String> {
    match Command::new("systemd-analyze").args(arguments).output() {
        Ok(output) => Some(
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        ),
        Err(error) => {
            eprintln!("SKIPPED: systemd-analyze can't be run ({error}): apt-get install systemd");
            None
        }
    }
}

fn units() -> [(String, String); 2] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("systemd");
    ["farm-agent", "farm-broker"].map(|program| {
        let path = folder.join(format!("{program}.service"));
        (program.to_owned(), path.to_str().unwrap().to_owned())
    })
}

#[test]
fn systemd_understands_every_line() {
    let root = tempfile::tempdir().unwrap();
    for (program, path) in units() {
        // Where the program is installed is no matter here, but one must be there.
        let (stand_in, unit) = (root.path().join(&program), root.path().join(format!("{program}.service")));
        fs::write(&stand_in, "").unwrap();
        fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let text = text
            .replace(&format!("ExecStart=/usr/bin/{program}"), &format!("ExecStart={}", stand_in.display()));
        fs::write(&unit, text).unwrap();
        let Some(said) = analyze(&["verify", "--man=no", unit.to_str().unwrap()]) else { return };
        let complaints: Vec<&str> = said
            .lines()
            .filter(|line| line.contains(&program) && !NEWER.iter().any(|key| line.contains(key)))
            .collect();
        assert!(complaints.is_empty(), "{program}: {complaints:#?}");
    }
}

#[test]
fn the_brokers_socket_is_understood_and_holds_what_its_config_names() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("systemd");
    let text = fs::read_to_string(folder.join("farm-broker.socket")).unwrap();
    // As the package's config suggests: `[::]:443`, redirected to from port 80.
    for line in ["ListenStream=443", "ListenStream=80", "ListenDatagram=443"] {
        assert!(text.lines().any(|l| l == line), "no line {line}");
    }
    let root = tempfile::tempdir().unwrap();
    let (stand_in, unit) = (root.path().join("farm-broker"), root.path().join("farm-broker.socket"));
    fs::write(&stand_in, "").unwrap();
    fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
    // A socket needs its service.
    let service = fs::read_to_string(folder.join("farm-broker.service")).unwrap();
    let service =
        service.replace("ExecStart=/usr/bin/farm-broker", &format!("ExecStart={}", stand_in.display()));
    fs::write(root.path().join("farm-broker.service"), service).unwrap();
    fs::write(&unit, text).unwrap();
    let Some(said) = analyze(&["verify", "--man=no", unit.to_str().unwrap()]) else { return };
    let complaints: Vec<&str> = said
        .lines()
        .filter(|l| l.contains("farm-broker") && !NEWER.iter().any(|key| l.contains(key)))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn the_units_are_confined() {
    for (program, path) in units() {
        let Some(said) = analyze(&["security", "--offline=true", "--no-pager", &path]) else { return };
        let line = said
            .lines()
            .find(|line| line.contains("Overall exposure level"))
            .unwrap_or_else(|| panic!("{said}"));
        let exposure: f64 =
            line.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        assert!(exposure <= EXPOSURE, "{program}: exposure {exposure}, at most {EXPOSURE}\n{said}");
    }
}

#[test]
fn nothing_ends_them_for_good() {
    for (program, path) in units() {
        let text = fs::read_to_string(path).unwrap();
        for line in ["StartLimitIntervalSec=0", "Restart=always", "Type=notify", "WatchdogSec=30s"] {
            assert!(text.lines().any(|l| l == line), "{program}: no line {line}");
        }
    }
}

/// A pause that is over when systemd next looks costs nothing; one that it has to
/// sleep through is up to 250 ms longer. None at all would be none for ever: the
/// steps are multiples of it.
#[test]
fn the_first_pause_is_too_short_to_sleep_through() {
    for (program, path) in units() {
        let text = fs::read_to_string(path).unwrap();
        let pause = text.lines().find_map(|line| line.strip_prefix("RestartSec=")).unwrap_or("none");
        let micros: u32 = pause.strip_suffix("us").and_then(|us| us.parse().ok()).unwrap_or(0);
        assert!((1..=100).contains(&micros), "{program}: RestartSec={pause}, not 1us to 100us");
    }
}

/// The private /tmp and its like are mounts of their own: `NoExecPaths=/` leaves
/// what is written there executable.
#[test]
fn what_they_write_they_cannot_run() {
    for (program, path) in units() {
        let text = fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("NoExecPaths=")).unwrap_or_default();
        for path in ["/", "-/tmp", "-/var/tmp", "-/dev/shm"] {
            assert!(
                line.split(' ').any(|word| word == path),
                "{program}: {path} is not in NoExecPaths={line}"
            );
        }
    }
}

/// A path that is not there stops a unit, unless a dash says that it need not
/// be: 64-bit ARM has no /usr/lib64, and the agent did not start on a Pi.
#[test]
fn paths_of_one_processor_only_need_not_be_there() {
    for (program, path) in units() {
        let text = fs::read_to_string(path).unwrap();
        let bare = text.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
        let bare: Vec<&str> = bare.filter(|word| word.starts_with("/usr/lib64")).collect();
        assert!(bare.is_empty(), "{program}: {bare:?}");
    }
}
