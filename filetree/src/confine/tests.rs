use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt, fs::symlink},
    path::PathBuf,
};

use super::{Bounds, Cage, Confine, Confinement, find_program, is_available, keep_writes_below};

fn cage() -> Cage {
    Cage {
        confine: Confine::Auto,
        read: vec!["/live".into(), PathBuf::from(OsString::from_vec(b"/odd \xff\n".to_vec()))],
        write: vec!["start".into()],
        programs: vec!["/opt/rsync/bin/rsync".into()],
        bounds: Bounds { memory_bytes: 1, file_bytes: 2, cpu_seconds: 3, open_files: 4 },
    }
}

#[test]
fn a_cage_is_the_same_after_it_was_told_as_arguments() {
    let mut words = cage().arguments("rsync".as_ref());
    words.extend(["--".into(), "read".into(), "-e".into()]);
    let (read, program, rest) = Cage::parse(words.into_iter()).unwrap();
    assert_eq!(read, cage());
    assert_eq!(program, PathBuf::from("rsync"));
    assert_eq!(rest, ["--", "read", "-e"]);
}

#[test]
fn arguments_that_end_early_or_say_something_else_open_no_cage() {
    let words = cage().arguments("rsync".as_ref());
    for len in 0..words.len() {
        assert!(Cage::parse(words.iter().take(len).cloned()).is_err(), "{len}");
    }
    for wrong in [["confine", "never"], ["memory", "-1"], ["anything", "else"]] {
        assert!(Cage::parse(wrong.into_iter().map(OsString::from)).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_program_is_found_as_a_shell_finds_it() {
    assert!(find_program("sh".as_ref()).is_some_and(|path| path.is_absolute()));
    assert_eq!(find_program("/bin/sh".as_ref()), Some("/bin/sh".into()));
    assert_eq!(find_program("/nowhere/sh".as_ref()), None);
    assert_eq!(find_program("no-such-program-anywhere".as_ref()), None);
}

/// In a thread of its own, because a fence is for good.
#[test]
fn a_fenced_thread_writes_where_it_may_and_nowhere_else() {
    if !is_available() {
        eprintln!("skipped: this kernel has no Landlock");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mine, other) = (dir.path().join("mine"), dir.path().join("other"));
    for dir in [&mine, &other] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("file"), "as it was").unwrap();
    }
    symlink(&other, mine.join("way-out")).unwrap();
    let fenced = std::thread::scope(|scope| {
        let work = || {
            let missing = dir.path().join("missing");
            let gates = [mine.clone(), missing.clone()];
            assert_eq!(keep_writes_below(&gates, Confine::Required).unwrap(), Confinement::Full);
            // Everything that an agent does.
            fs::write(mine.join("new"), "new").unwrap();
            fs::create_dir(mine.join("dir")).unwrap();
            fs::rename(mine.join("new"), mine.join("dir/moved")).unwrap();
            fs::hard_link(mine.join("dir/moved"), mine.join("linked")).unwrap();
            symlink("file", mine.join("link")).unwrap();
            fs::remove_file(mine.join("link")).unwrap();
            assert_eq!(fs::read(other.join("file")).unwrap(), b"as it was");
            assert!(std::process::Command::new("true").status().unwrap().success());
            [
                fs::write(other.join("file"), "changed"),
                fs::write(mine.join("way-out/new"), "new"),
                fs::write(other.join("new"), "new"),
                fs::remove_file(other.join("file")),
                fs::rename(mine.join("file"), other.join("moved")),
                fs::rename(other.join("file"), mine.join("stolen")),
                fs::hard_link(mine.join("file"), other.join("linked")),
                symlink("file", other.join("link")),
                fs::create_dir(other.join("dir")),
                fs::File::options().write(true).truncate(true).open(other.join("file")).map(drop),
                fs::create_dir(&missing),
            ]
        };
        scope.spawn(work).join().unwrap()
    });
    for (at, result) in fenced.iter().enumerate() {
        assert!(result.is_err(), "attempt {at}");
    }
    assert_eq!(fs::read(other.join("file")).unwrap(), b"as it was");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
    // This thread was outside.
    fs::write(other.join("new"), "new").unwrap();
}
