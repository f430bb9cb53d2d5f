//! The agent is killed anywhere, and what it publishes is one whole generation all the same.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tests::fixture::{OneTree, prose};

const FILES: u64 = 60;

/// The generation that `dir` holds, if it is exactly one.
fn generation_of(dir: &Path) -> Option<u64> {
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..FILES {
        let text = fs::read_to_string(dir.join(format!("d{}/f{n}", n % 7))).ok()?;
        seen.insert(text.lines().next()?.strip_prefix("generation ")?.parse().ok()?);
    }
    if seen.len() == 1 { seen.first().copied() } else { None }
}

fn write_generation(net: &OneTree, generation: u64) {
    for n in 0..FILES {
        net.write(
            &format!("d{}/f{n}", n % 7),
            format!("generation {generation}\n{}", prose(n, 20_000)),
        );
    }
}

#[test]
fn a_kill_at_any_time_leaves_the_old_generation_or_the_new_one() {
    let net = OneTree::start("", "");
    write_generation(&net, 1);
    net.publish_and_sync();
    let rounds = 24;
    let mut interrupted = 0;
    for round in 0..rounds {
        let generation = round + 2;
        write_generation(&net, generation);
        net.publish();
        let mut child = net.agent.command(&["run", "--once"]).spawn().unwrap();
        // Spread over the life of a run; where exactly it hits does not matter, that it hits
        // everywhere does, and the fail points of `filetree` cover every single site.
        let until = Instant::now() + Duration::from_millis(15 * round);
        tests::wait_until("the moment of the kill", || Instant::now() >= until);
        interrupted += u64::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        let held = generation_of(&net.mirror());
        assert!(
            held.is_some_and(|held| held == generation || held == generation - 1),
            "round {round}: {held:?} is neither {} nor {generation}",
            generation - 1
        );
        net.agent.sync();
        assert_eq!(generation_of(&net.mirror()), Some(generation), "round {round}");
    }
    assert!(interrupted > rounds / 3, "only {interrupted} of {rounds} runs were interrupted");
    net.assert_same();
    let work = net.agent.storage.join("work");
    let left = walkdir::WalkDir::new(&work).into_iter().filter_map(Result::ok).filter(|entry| {
        entry.path().components().any(|part| part.as_os_str() == "staging")
            && entry.file_type().is_file()
    });
    assert_eq!(left.count(), 0, "staged files were left in {}", work.display());
}
