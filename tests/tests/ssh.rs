//! A real OpenSSH server at the farm, reached through the tunnel.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{SOON, Scene};
use farm_tests::greenhouse::content;
use farm_tests::harness::farm::Service;
use farm_tests::harness::{Process, free_port, run, sha256, until};

/// Where Debian's package openssh-server puts it; it insists on an absolute path.
const SSHD: &str = "/usr/sbin/sshd";
/// As root, the server refuses to run without this directory, which the
/// package's service makes at boot.
const SEPARATION: &str = "/run/sshd";
/// The size of the copied file, bytes.
const FILE: u64 = 5_000_000;

/// An SSH server that lets the user of this test in with a key made for it.
struct Server {
    process: Process,
    port: u16,
    key: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- sshd, its last lines:\n{}", self.process.tail());
        }
    }
}

fn keygen(path: &Path) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path);
    run("ssh-keygen", &mut command, SOON).unwrap();
}

fn server(dir: &Path) -> Server {
    if nix::unistd::geteuid().is_root() && !Path::new(SEPARATION).exists() {
        // What `tmpfiles.d` or the init script of the package would do.
        DirBuilder::new().mode(0o755).recursive(true).create(SEPARATION).unwrap();
    }
    let (host, key) = (dir.join("host"), dir.join("user"));
    keygen(&host);
    keygen(&key);
    let authorized = dir.join("authorized_keys");
    fs::copy(dir.join("user.pub"), &authorized).unwrap();
    let config = dir.join("sshd_config");
    let text = format!(
        "ListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
         StrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
         Subsystem sftp internal-sftp\n",
        host.display(),
        authorized.display()
    );
    fs::write(&config, text).unwrap();
    let address = free_port().unwrap();
    let mut command = Command::new(SSHD);
    command.args(["-D", "-e", "-f"]).arg(&config).args(["-p", &address.port().to_string()]);
    let process = Process::spawn("sshd", &mut command).unwrap();
    let server = Server { process, port: address.port(), key };
    server.process.wait_for_line("that it listens", SOON, |l| l.text.contains("listening")).unwrap();
    server
}

/// `ssh` or `scp` with the test's key and nobody's configuration.
fn client(program: &str, server: &Server, port_option: &str, port: u16) -> Command {
    let mut command = Command::new(program);
    command.args(["-F", "none", port_option, &port.to_string(), "-i"]).arg(&server.key);
    for option in [
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
    ] {
        command.args(["-o", option]);
    }
    command
}

fn user() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap();
    user.expect("this user has a name").name
}

#[test]
fn a_shell_and_files_over_ssh() {
    if !Path::new(SSHD).exists() {
        eprintln!("SKIPPED: {SSHD} is not installed; `apt-get install openssh-server openssh-client`");
        return;
    }
    let scene = Scene::start("a shell command and files both ways over SSH");
    let dir = scene.dir().join("ssh");
    DirBuilder::new().mode(0o700).create(&dir).unwrap();
    let server = server(&dir);
    scene.add_services(vec![Service::tcp("ssh", &format!("127.0.0.1:{}", server.port))]);
    let gate = scene.forward("ssh");
    let port = gate.address.port();
    let me = user();

    let start = Instant::now();
    let mut shell = client("ssh", &server, "-p", port);
    let done = run("ssh", shell.arg(format!("{me}@127.0.0.1")).arg("echo $((6 * 7)); id -un"), SOON).unwrap();
    assert_eq!(done.stdout, format!("42\n{me}"));
    println!("a command over ssh in {} ms", start.elapsed().as_millis());

    let mut bytes = Vec::new();
    while (bytes.len() as u64) < FILE {
        let offset = bytes.len() as u64;
        bytes.extend_from_slice(&content::piece(offset, FILE - offset));
    }
    let [local, there, back] = ["local", "there", "back"].map(|name| dir.join(name));
    fs::write(&local, &bytes).unwrap();
    fs::set_permissions(&local, Permissions::from_mode(0o600)).unwrap();
    let remote = format!("{me}@127.0.0.1:{}", there.display());
    for (from, to) in
        [(local.display().to_string(), remote.clone()), (remote.clone(), back.display().to_string())]
    {
        let start = Instant::now();
        run("scp", client("scp", &server, "-P", port).args([&from, &to]), Duration::from_secs(60)).unwrap();
        println!("5 MB by scp in {} ms", start.elapsed().as_millis());
    }
    for copy in [&there, &back] {
        assert_eq!(sha256(&fs::read(copy).unwrap()), sha256(&bytes), "{} came altered", copy.display());
    }

    // Nothing is left open at the farm when the clients are gone.
    until("no stream is left", SOON, || {
        let status = scene.agent.control.status().ok()?;
        (status["sessions"][0]["streams"] == 0).then_some(())
    })
    .unwrap();
    assert!(server.process.is_running());
}
