//! A stock server that turns against its mirrors, with the real agent: what is published stays.

#[allow(dead_code, reason = "other tests play the other parts")]
#[path = "../../mirror-agent/tests/hostile_rsync/speaker.rs"]
mod speaker;

use std::{
    fs,
    sync::{Arc, Mutex},
};

use speaker::{End, Item, Moment, Play, Stage};
use tests::{
    Testbed,
    network::{Agent, inodes},
    programs::told,
};

const FILES: usize = 12;

/// Plays an honest server with the files of a version: all in one directory, without subdirectories.
fn honest(version: u8) -> Play {
    let files = (0..FILES).map(|n| (name(n), content(version, n)));
    let files: Vec<_> = files.collect();
    let listed = files.iter().map(|(name, content)| Item::file(name, content.len() as i64));
    let items = std::iter::once(Item::dir(".")).chain(listed).collect();
    Play { items: Some(items), files, ..Play::default() }
}

fn name(n: usize) -> String {
    format!("f{n:02}")
}

/// Versions differ in length, as rsync tells them apart by that and by their time.
fn content(version: u8, n: usize) -> Vec<u8> {
    vec![b'a' + version; 2_001 + 100 * n + usize::from(version)]
}

fn holds(agent: &Agent, version: u8) -> bool {
    let published = agent.published("tree");
    (0..FILES)
        .all(|n| fs::read(published.join(name(n))).is_ok_and(|held| held == content(version, n)))
}

fn start() -> (Testbed, Agent, Stage) {
    let stage = Arc::new(Mutex::new(honest(0)));
    let port = speaker::start_on(&stage);
    let testbed = Testbed::start();
    testbed.apply(&format!(
        "[[upstream]]\nname = \"stock\"\nkind = \"rsyncd\"\nurl = \"rsync://127.0.0.1:{port}/\"\n\
         [[source]]\nname = \"source\"\nupstream = \"stock\"\npath = \"pub\"\n\
         [[tree]]\nname = \"tree\"\nsource = \"source\"\n\
         [[site]]\nname = \"site\"\n\
         [[grant]]\nsite = \"site\"\ntree = \"tree\"\n\
         [[assignment]]\nsite = \"site\"\ntree = \"tree\"\n"
    ));
    let agent = testbed.enroll_agent("agent", "site");
    (testbed, agent, stage)
}

#[test]
fn a_mirror_of_a_server_that_turned_hostile_stays_as_it_was() {
    let (testbed, agent, stage) = start();
    agent.sync();
    assert!(holds(&agent, 0));
    let secret = testbed.path("secret");
    fs::write(&secret, "secret").unwrap();
    let held = inodes(&agent.storage.join("pub"));
    let with = |item: Item| {
        let mut play = honest(1);
        play.items.as_mut().unwrap().insert(1, item);
        play
    };
    let mut shrunk = honest(1);
    shrunk.items.as_mut().unwrap().truncate(2);
    for (case, play) in [
        ("a name above the tree", with(Item::file("../../secret", 6))),
        ("an absolute name", with(Item::file(secret.to_str().unwrap(), 6))),
        (
            "a file below a link",
            Play {
                items: Some(vec![Item::dir("."), Item::link("l", "/"), Item::file("l/f", 1)]),
                ..honest(1)
            },
        ),
        ("a list without files", Play { items: Some(vec![Item::dir(".")]), ..honest(1) }),
        ("a list cut short without a word", shrunk),
        ("a list that breaks off", Play { end: Some((Moment::ListBegun, End::Cut)), ..honest(1) }),
        ("errors at the upstream", Play { list_errors: 1, ..honest(1) }),
        ("content that does not fit its sum", Play { wrong_checksum: true, ..honest(1) }),
        (
            "content that breaks off",
            Play { end: Some((Moment::HalfOfFile, End::Cut)), ..honest(1) },
        ),
        ("content without end", Play { endless_content: true, ..honest(1) }),
        (
            "denied",
            Play { opening: b"@ERROR: access denied to pub from unknown\n".to_vec(), ..honest(1) },
        ),
    ] {
        *stage.lock().unwrap() = play;
        let output = agent.run_once();
        assert_eq!(output.status.code(), Some(1), "{case}: {}", told(&output));
        let run = &testbed.runs("tree@site")[0];
        let why = run["error"].as_str().unwrap();
        eprintln!("{case}: {why}");
        assert!(why.len() > 20 && !why.chars().any(char::is_control), "{case}: {why:?}");
        assert_eq!(inodes(&agent.storage.join("pub")), held, "{case}");
        assert!(holds(&agent, 0), "{case}");
        assert_eq!(fs::read(&secret).unwrap(), b"secret", "{case}");
    }
    // It was the lies, not the server: what it says honestly is taken.
    *stage.lock().unwrap() = honest(1);
    agent.sync();
    assert!(holds(&agent, 1));
}

#[test]
fn devices_of_a_stock_server_are_left_out_by_name_and_the_rest_is_mirrored() {
    let (testbed, agent, stage) = start();
    let mut play = honest(0);
    play.listed.push(Item::of_mode("null", 0o020_666));
    *stage.lock().unwrap() = play;
    agent.sync();
    assert!(holds(&agent, 0));
    let run = &testbed.runs("tree@site")[0];
    let left_out = run["notices"]
        .as_array()
        .unwrap()
        .iter()
        .any(|notice| notice.as_str().unwrap().contains("null: a device, fifo or socket"));
    assert!(left_out, "{run:#}");
}
