//! What `make install` places works as it lies there.

use std::{fs, path::Path, process::Command, sync::OnceLock};

use tests::{
    Testbed,
    programs::{directory, isolate, program, succeed, told},
};

const ROLES: [(&str, &str); 3] =
    [("coordinator", "coordinator"), ("publisher", "publisher"), ("mirror-agent", "mirror-agent")];

/// Installs the built programs once, into a directory that goes away with the process.
fn installed() -> &'static Path {
    static ROOT: OnceLock<tempfile::TempDir> = OnceLock::new();
    ROOT.get_or_init(|| {
        let root = tempfile::tempdir().unwrap();
        let release = directory().ends_with("release");
        let mut make = Command::new("make");
        isolate(&mut make);
        make.args(["install", "PREFIX=/usr"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        make.arg(format!("DESTDIR={}", root.path().display()));
        make.arg(if release { "PROFILE=release" } else { "PROFILE=dev" });
        make.env("CARGO_TARGET_DIR", directory().parent().unwrap());
        // The programs are built; by other flags than the tests' they would be built once more.
        make.arg("CARGO=true");
        succeed(&mut make);
        root
    })
    .path()
}

#[test]
fn everything_is_where_a_system_looks_for_it() {
    let root = installed();
    for name in ["coordinator", "mirrorctl", "publisher", "mirror-agent"] {
        for file in [
            format!("usr/bin/{name}"),
            format!("usr/share/man/man1/{name}.1"),
            format!("usr/share/bash-completion/completions/{name}"),
            format!("usr/share/zsh/site-functions/_{name}"),
            format!("usr/share/fish/vendor_completions.d/{name}.fish"),
        ] {
            let length =
                fs::metadata(root.join(&file)).unwrap_or_else(|e| panic!("{file}: {e}")).len();
            assert!(length > 0, "{file} is empty");
        }
    }
    for (role, _) in ROLES {
        for file in [
            format!("usr/lib/systemd/system/mirrornet-{role}.service"),
            format!("usr/lib/sysusers.d/mirrornet-{role}.conf"),
            format!("usr/lib/tmpfiles.d/mirrornet-{role}.conf"),
            format!("usr/share/doc/mirrornet/examples/{role}.toml"),
        ] {
            assert!(root.join(&file).is_file(), "{file}");
        }
    }
    assert!(root.join("usr/lib/systemd/system-generators/mirrornet-mirror-agent").is_file());
}

#[test]
fn the_agents_unit_may_write_where_its_configuration_says() {
    let root = installed();
    let dir = tempfile::tempdir().unwrap();
    // As on a machine of its own: programs below /usr/bin, the configuration in /etc/mirrornet.
    let generator = root.join("usr/lib/systemd/system-generators/mirrornet-mirror-agent");
    let script = fs::read_to_string(generator)
        .unwrap()
        .replace("/etc/mirrornet/", &format!("{}/", dir.path().display()))
        .replace("/usr/bin/", &format!("{}/usr/bin/", root.display()));
    let units = dir.path().join("units");
    let generate = || {
        let mut command = Command::new("sh");
        isolate(&mut command);
        succeed(command.args(["-c", &script, "generator"]).arg(&units));
    };
    generate();
    assert!(!units.exists(), "something was generated without a configuration");
    fs::write(dir.path().join("mirror-agent.toml"), "storage = \"/data/my mirror\"\n").unwrap();
    generate();
    let drop_in = units.join("mirrornet-mirror-agent.service.d/storage.conf");
    let text = fs::read_to_string(&drop_in).unwrap();
    assert!(text.contains("ReadWritePaths=\"-/data/my mirror\""), "{text}");

    let unit = root.join("usr/lib/systemd/system/mirrornet-mirror-agent.service");
    let unit = fs::read_to_string(unit)
        .unwrap()
        .replace("/usr/bin/", &format!("{}/usr/bin/", root.display()));
    let file = units.join("mirrornet-mirror-agent.service");
    fs::write(&file, unit).unwrap();
    let verify = || {
        let mut analyze = Command::new("systemd-analyze");
        isolate(&mut analyze);
        let output = analyze.args(["verify", "--man=no"]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        said.lines().filter(|line| line.contains("storage.conf")).map(str::to_owned).collect()
    };
    let found: Vec<String> = verify();
    assert_eq!(found, Vec::<String>::new());
    // That it looks at the drop-in at all is shown by one that is wrong.
    fs::write(&drop_in, text.replace("-/data", "-data")).unwrap();
    assert!(!verify().is_empty(), "systemd-analyze did not read the drop-in");
}

#[test]
fn units_pass_the_judgment_of_systemd() {
    let root = installed();
    for (role, program) in ROLES {
        let unit = fs::read_to_string(
            root.join(format!("usr/lib/systemd/system/mirrornet-{role}.service")),
        )
        .unwrap();
        // systemd-analyze looks for the program and its manual on this machine, where nothing is installed.
        let unit = unit
            .replace("ExecStart=/usr/bin/", &format!("ExecStart={}/usr/bin/", root.display()))
            .lines()
            .filter(|line| !line.starts_with("Documentation="))
            .collect::<Vec<_>>()
            .join("\n");
        assert!(unit.contains(&format!("usr/bin/{program} ")), "{unit}");
        let file = root.join(format!("mirrornet-{role}.service"));
        fs::write(&file, unit + "\n").unwrap();
        let mut analyze = Command::new("systemd-analyze");
        isolate(&mut analyze);
        let output = analyze.args(["verify", "--man=no"]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let about_us: Vec<&str> = said.lines().filter(|line| line.contains("mirrornet")).collect();
        assert!(output.status.success() && about_us.is_empty(), "{}", told(&output));
    }
}

#[test]
fn example_configurations_pass_their_own_check() {
    let root = installed();
    for (role, name) in ROLES {
        let example = root.join(format!("usr/share/doc/mirrornet/examples/{role}.toml"));
        let output =
            program(name).args(["check-config", "--config"]).arg(&example).output().unwrap();
        let said = told(&output);
        // The directories of the example are another machine's; the keys have to be right.
        assert!(!said.contains("unknown"), "{role}: {said}");
        assert_ne!(output.status.code(), Some(2), "{role}: {said}");
    }
}

#[test]
fn each_unit_starts_by_its_own_exec_start_and_says_that_it_is_ready() {
    let net = Testbed::start();
    net.apply("[[site]]\nname = \"site\"\n[[upstream]]\nname = \"build\"\nkind = \"publisher\"\n");
    let publisher = net.enroll_publisher("build");
    let agent = net.enroll_agent("agent", "site");
    // A second coordinator with the same certificate authority would be another machine's.
    let second = net.path("second");
    let mut init = program("coordinator");
    init.args(["init", "--network", "second", "--hostname", "localhost", "--data"]).arg(&second);
    succeed(&mut init);
    let coordinator = net.path("second.toml");
    fs::write(
        &coordinator,
        format!("data = {second:?}\nlisten = \"127.0.0.1:0\"\nenroll-listen = \"127.0.0.1:0\"\n"),
    )
    .unwrap();

    let configs = [coordinator, publisher.config.clone(), agent.config.clone()];
    for ((role, _), config) in ROLES.iter().zip(configs) {
        let unit = installed().join(format!("usr/lib/systemd/system/mirrornet-{role}.service"));
        let unit = fs::read_to_string(unit).unwrap();
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let mut words = start.split_whitespace();
        let program = installed().join(words.next().unwrap().trim_start_matches('/'));
        let socket = net.path(&format!("{role}.notify"));
        let ready = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
        ready.set_read_timeout(Some(tests::PATIENCE)).unwrap();
        let mut command = Command::new(program);
        isolate(&mut command);
        command.env("NOTIFY_SOCKET", &socket);
        for word in words {
            let example = word.starts_with("/etc/mirrornet/");
            if example {
                command.arg(&config)
            } else {
                command.arg(word)
            };
        }
        let daemon =
            tests::Daemon::start(role, &mut command, &net.path(&format!("{role}.unit.log")));
        let mut message = [0; 256];
        let mut told = String::new();
        while !told.contains("READY=1") {
            let length = ready
                .recv(&mut message)
                .unwrap_or_else(|e| panic!("{role}: {e}\n{}", daemon.log()));
            told.push_str(&String::from_utf8_lossy(&message[..length]));
        }
        assert!(daemon.stop().success(), "{role} did not drain");
    }
}
