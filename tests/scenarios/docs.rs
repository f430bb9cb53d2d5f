//! The commands in the tutorial are run, in order, as they stand there.
//!
//! Only what belongs to a machine is replaced: directories of the system by directories of the
//! test, host names by loopback, and `systemctl`, `chown` and `install` of a whole system by small
//! scripts that do the same for this test alone.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use tests::{
    programs::{directory, isolate, told},
    rsyncd::free_port,
};

struct Machine {
    dir: tempfile::TempDir,
    ports: [u16; 3],
}

impl Machine {
    fn new() -> Self {
        let machine = Self {
            dir: tempfile::tempdir().unwrap(),
            ports: [free_port(), free_port(), free_port()],
        };
        for dir in ["bin", "etc/mirrornet", "var", "srv/mirror", "examples", "run", "home"] {
            fs::create_dir_all(machine.path(dir)).unwrap();
        }
        for role in ["coordinator", "publisher", "mirror-agent"] {
            let example = format!("{}/../{role}/packaging/{role}.toml", env!("CARGO_MANIFEST_DIR"));
            let text = fs::read_to_string(example).unwrap();
            fs::write(machine.path(&format!("examples/{role}.toml")), machine.local(&text))
                .unwrap();
        }
        for program in ["coordinator", "mirrorctl", "publisher", "mirror-agent"] {
            std::os::unix::fs::symlink(
                directory().join(program),
                machine.path("bin").join(program),
            )
            .unwrap();
        }
        machine.script("chown", "exit 0");
        machine
            .script("systemctl", &SYSTEMCTL.replace("@DIR@", machine.dir.path().to_str().unwrap()));
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn script(&self, name: &str, body: &str) {
        let file = self.path("bin").join(name);
        fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Replaces what belongs to a machine.
    fn local(&self, text: &str) -> String {
        let dir = self.dir.path().to_str().unwrap();
        let mut text = text
            .replace("/usr/share/doc/mirrornet/examples", &format!("{dir}/examples"))
            .replace("/var/lib/mirrornet", &format!("{dir}/var"))
            .replace("/etc/mirrornet", &format!("{dir}/etc/mirrornet"))
            .replace("/srv/", &format!("{dir}/srv/"))
            .replace("0.0.0.0", "127.0.0.1");
        for host in ["coordinator", "build", "mirror"] {
            text = text.replace(&format!("{host}.example.org"), "127.0.0.1");
        }
        for (from, to) in [8443, 8444, 8445].iter().zip(self.ports) {
            text = text.replace(&from.to_string(), &to.to_string());
        }
        text
    }

    /// Runs a block and takes what it printed.
    fn run(&self, block: &str) -> String {
        let path = std::env::var("PATH").unwrap();
        let mut shell = Command::new("sh");
        isolate(&mut shell);
        shell.args(["-e", "-c", block]).current_dir(self.path("home"));
        shell.env("PATH", format!("{}:{path}", self.path("bin").display()));
        shell.env("HOME", self.path("home"));
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{block}\n{}{}", told(&output), self.logs());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn logs(&self) -> String {
        let mut logs = String::new();
        for entry in fs::read_dir(self.path("run")).unwrap().map(Result::unwrap) {
            if entry.path().extension().is_some_and(|e| e == "log") {
                let text = fs::read_to_string(entry.path()).unwrap();
                write!(logs, "\n--- {}\n{text}", entry.path().display()).unwrap();
            }
        }
        logs
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.path("run")).into_iter().flatten().filter_map(Result::ok) {
            if entry.path().extension().is_some_and(|e| e == "pid") {
                let pid = fs::read_to_string(entry.path()).unwrap_or_default();
                if let Some(pid) = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw)
                {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                }
            }
        }
    }
}

/// Starts the program that a unit's ExecStart names, and waits until it listens or, for the
/// agent, answers: what Type=notify does on a real system.
const SYSTEMCTL: &str = r#"
unit=$3
case $unit in
    mirrornet-coordinator) run='coordinator serve'; data=coordinator; config=coordinator; sign=listen ;;
    mirrornet-publisher) run='publisher run'; data=publisher; config=publisher; sign=listen ;;
    mirrornet-mirror-agent) run='mirror-agent run'; data=agent; config=mirror-agent; sign=control.sock ;;
    *) echo "no such unit: $unit" >&2; exit 1 ;;
esac
$run --config @DIR@/etc/mirrornet/$config.toml >> @DIR@/run/$data.log 2>&1 &
echo $! > @DIR@/run/$data.pid
for try in $(seq 600); do
    [ -e @DIR@/var/$data/$sign ] && exit 0
    kill -0 $! || exit 1
    sleep 0.05
done
exit 1
"#;

/// A fenced block of a document: what its fence says, and its text.
pub(super) fn blocks(document: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(document).unwrap();
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(kind)) => open = Some((kind.to_owned(), String::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

#[test]
fn the_tutorial_works_as_it_is_written() {
    let machine = Machine::new();
    let tutorial = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tutorial.md");
    let mut invite = String::new();
    let mut exported = String::new();
    let mut said = String::new();
    for (kind, block) in blocks(&tutorial) {
        let block = machine.local(&block);
        if let Some(file) = kind.strip_prefix("toml file=") {
            fs::write(machine.path("home").join(file), block).unwrap();
        } else if kind == "sh" {
            let block = block.replace("--invite INVITE", &format!("--invite {invite}"));
            exported.extend(
                block.lines().filter(|l| l.starts_with("export ")).map(|l| format!("{l}\n")),
            );
            let printed = machine.run(&format!("{exported}{block}"));
            if let Some(line) = printed.lines().find(|line| line.starts_with("mirrornet1.")) {
                invite = line.trim().to_owned();
            }
            said.push_str(&printed);
        }
    }
    assert!(said.contains("held, as it should be"), "{said}");
    assert!(
        said.contains("readme.txt")
            || machine.path("srv/mirror/pub/project/docs/readme.txt").exists()
    );
    assert!(!machine.path("srv/mirror/pub/project/embargo").exists());
    let mirrored = fs::read(machine.path("srv/mirror/pub/project/numbers.txt")).unwrap();
    assert!(mirrored.ends_with(b"100001\n"));
}
