use protocol::v1::agent::MAX_LOG;

use super::*;

fn name() -> protocol::spec::AssignmentName {
    "fedora@lisbon".parse().unwrap()
}

fn read(shelf: &Shelf, kept: Kept) -> String {
    shelf.read(&name(), kept).unwrap().unwrap_or_default()
}

#[test]
fn current_previous_and_the_last_log_of_a_change_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::of(dir.path());
    let mut ids = Vec::new();
    for (text, changed) in [("first", true), ("second", false), ("third", false)] {
        let id = uuid::Uuid::now_v7();
        let log = shelf.begin(&name(), id);
        log.line(text);
        log.end("SYNC_UP_TO_DATE");
        if changed {
            log.keep_as_changed();
        }
        ids.push(id);
    }
    assert!(read(&shelf, Kept::Current).contains("third"));
    assert!(read(&shelf, Kept::Previous).contains("second"));
    assert!(read(&shelf, Kept::Changed).contains("first"));
    assert!(shelf.of_run(&name(), ids[0]).unwrap().contains("first"));
    assert!(shelf.of_run(&name(), ids[1]).unwrap().contains("second"));
    assert!(shelf.of_run(&name(), uuid::Uuid::now_v7()).is_none());
    assert_eq!(shelf.names(), [name()]);
    shelf.remove(&name());
    assert!(shelf.names().is_empty());
}

#[test]
fn what_programs_print_cannot_move_a_reader_s_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::of(dir.path());
    let log = shelf.begin(&name(), uuid::Uuid::now_v7());
    log.line("rsync: \u{1b}[2Jgone\ttab\nsecond line");
    let text = read(&shelf, Kept::Current);
    assert!(text.contains("rsync: \\u{1b}[2Jgone\ttab\n"), "{text}");
    let times = text.lines().filter(|line| line[..20].parse::<Timestamp>().is_ok());
    assert_eq!(times.count(), 3, "{text}");
}

#[test]
fn a_log_has_an_end_however_much_there_is_to_say_and_a_report_carries_both_ends() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::of(dir.path());
    let id = uuid::Uuid::now_v7();
    let log = shelf.begin(&name(), id);
    let long = "x".repeat(1_000);
    for n in 0..2_000 {
        log.line(&format!("{n} {long}"));
    }
    log.end("SYNC_FAILED");
    let text = read(&shelf, Kept::Current);
    assert!(text.len() < (MAX_LEN as usize) + 8_000, "{}", text.len());
    assert!(text.contains("lines were left out") && text.ends_with("run ended: SYNC_FAILED\n"));
    let excerpt = shelf.excerpt(&name(), id);
    assert!(excerpt.len() <= MAX_LOG, "{}", excerpt.len());
    assert!(excerpt.contains("begins (mirror-agent") && excerpt.contains("run ended: SYNC_FAILED"));
    assert!(excerpt.contains("bytes are left out here"));
}

#[test]
fn a_run_that_a_crash_ended_is_told_from_one_that_ended() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::of(dir.path());
    drop(shelf.begin(&name(), uuid::Uuid::now_v7()));
    shelf.begin(&name(), uuid::Uuid::now_v7()).end("SYNC_COMPLETED");
    assert!(read(&shelf, Kept::Previous).contains("the program ended before it did"));
    drop(shelf.begin(&name(), uuid::Uuid::now_v7()));
    assert!(!read(&shelf, Kept::Previous).contains("the program ended"));
}

#[tokio::test]
async fn who_follows_gets_every_line_once_and_goes_on_with_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::of(dir.path());
    let name = name();
    let first = shelf.begin(&name, uuid::Uuid::now_v7());
    first.line("one");
    let mut follower = shelf.follow(&name);
    let mut seen = follower.next().await;
    assert!(seen.contains("one"));
    first.line("two");
    seen += &follower.next().await;
    first.end("SYNC_COMPLETED");
    // The first is the previous one before its end was read.
    let second = shelf.begin(&name, uuid::Uuid::now_v7());
    second.line("three");
    while !seen.contains("three") {
        seen += &follower.next().await;
    }
    for text in ["one", "two", "run ended: SYNC_COMPLETED", "three"] {
        assert_eq!(seen.matches(text).count(), 1, "{text}: {seen}");
    }
    second.end("SYNC_FAILED");
    let mut follower = shelf.follow(&name);
    let mut whole = String::new();
    while let Some(text) = follower.next_of_run().await {
        whole += &text;
    }
    assert!(whole.contains("three") && whole.ends_with("run ended: SYNC_FAILED\n"), "{whole}");
}
