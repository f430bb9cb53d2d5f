use std::io::Write as _;

use super::{records::RECORDS_AT_A_TIME, *};
use crate::fs::{Fs, Op};

fn key(content: &[u8], mtime: i64) -> FileKey {
    FileKey { digest: Digest::of(content), mode: 0o640, mtime, group: None }
}

fn need(content: &[u8]) -> Need {
    let path = TreePath::parse(b"some/file").unwrap();
    Need {
        digest: Digest::of(content),
        size: content.len() as u64,
        path,
        keys: vec![key(content, 7)],
    }
}

fn work() -> (tempfile::TempDir, Dir) {
    let temp = tempfile::tempdir().unwrap();
    let dir = Fs::disk().open_root(temp.path()).unwrap();
    (temp, dir)
}

fn stage(staging: &Staging, content: &[u8]) -> Result<Staged, Error> {
    let mut writer = staging.writer(&need(content))?;
    writer.push(content)?;
    writer.finish()
}

#[test]
fn verified_content_gets_its_name_mode_and_time() {
    let (_temp, work) = work();
    let staging = Staging::open(&work).unwrap();
    assert!(!staging.has(&need(b"hello")).unwrap());
    assert_eq!(stage(&staging, b"hello").unwrap().digest(), Digest::of(b"hello"));
    assert!(staging.has(&need(b"hello")).unwrap());
    let meta = staging.dir().stat(&key(b"hello", 7).file_name()).unwrap().unwrap();
    assert_eq!((meta.mode, meta.mtime, meta.size), (0o640, 7, 5));
}

#[test]
fn wrong_short_and_long_content_is_refused_and_leaves_nothing() {
    let (_temp, work) = work();
    let staging = Staging::open(&work).unwrap();
    let finish = |bytes: &[u8]| {
        let mut writer = staging.writer(&need(b"hello")).unwrap();
        writer.push(bytes).and_then(|()| writer.finish())
    };
    assert!(matches!(finish(b"jello"), Err(Error::Mismatch { .. })));
    assert!(matches!(finish(b"hell"), Err(Error::Length { actual: 4, .. })));
    assert!(matches!(finish(b"hello!"), Err(Error::Length { actual: 6, .. })));
    assert!(staging.writer(&need(b"hello")).unwrap().write_all(b"hello!").is_err());
    assert_eq!(staging.dir().entries().unwrap().len(), 1);
}

#[test]
fn a_sealed_batch_is_trusted_without_reading_it_again() {
    let (_temp, work) = work();
    let staging = Staging::open(&work).unwrap();
    stage(&staging, b"hello").unwrap();
    staging.seal().unwrap();
    let reopened = Staging::open(&work).unwrap();
    let before = work.fs().counters().snapshot();
    assert!(reopened.has(&need(b"hello")).unwrap());
    let opened = work.fs().counters().snapshot().since(&before).count(Op::OpenFile);
    assert_eq!(opened, 0);
}

#[test]
fn many_batches_are_trusted_in_parts_and_what_none_of_them_has_is_read_again() {
    let fs = Fs::with_backend(Box::<crate::fs::memory::MemoryDisk>::default(), None);
    let work = fs.create_root(std::path::Path::new("/work")).unwrap();
    let staging = Staging::open(&work).unwrap();
    let contents: Vec<Vec<u8>> = (0..400u32).map(|n| n.to_string().into_bytes()).collect();
    for content in &contents {
        stage(&staging, content).unwrap();
        staging.seal().unwrap();
    }
    assert!(contents.len() > 3 * RECORDS_AT_A_TIME);
    for lost in ["3", "250"] {
        staging.batches.unlink(lost.as_bytes()).unwrap();
    }
    let reopened = Staging::open(&work).unwrap();
    let before = work.fs().counters().snapshot();
    assert!(contents.iter().all(|content| reopened.has(&need(content)).unwrap()));
    assert_eq!(work.fs().counters().snapshot().since(&before).count(Op::OpenFile), 2);
    // Read again, they are recorded again.
    reopened.seal().unwrap();
    assert_eq!(reopened.lock().unproven.len(), 0);
    assert_eq!(Records::list(&reopened.batches).unwrap().0.len(), 399);
    reopened.clear().unwrap();
    assert_eq!(reopened.held().unwrap(), (0, 0));
}

#[test]
fn what_no_batch_recorded_is_verified_again_and_dropped_if_the_disk_lost_it() {
    let (temp, work) = work();
    let staging = Staging::open(&work).unwrap();
    for content in [&b"kept"[..], b"lost"] {
        stage(&staging, content).unwrap();
    }
    let name = String::from_utf8(key(b"lost", 7).file_name()).unwrap();
    std::fs::write(temp.path().join("staging").join(name), [0; 4]).unwrap();
    std::fs::write(temp.path().join("staging/tmp-9"), "half").unwrap();
    let reopened = Staging::open(&work).unwrap();
    assert!(reopened.has(&need(b"kept")).unwrap());
    assert!(!reopened.has(&need(b"lost")).unwrap());
    assert_eq!(reopened.held().unwrap(), (4, 1));
}

#[test]
fn what_a_sync_failed_for_is_not_taken_even_if_it_could_not_be_dropped_and_reads_well() {
    let temp = tempfile::tempdir().unwrap();
    let disk = Fs::disk_failing(std::sync::Arc::new("unlink:1:5".parse().unwrap()));
    let staging = Staging::open(&disk.open_root(temp.path()).unwrap()).unwrap();
    stage(&staging, b"hello").unwrap();
    staging.distrust(&mut staging.lock());
    assert_eq!(staging.held().unwrap(), (5, 1), "it is there still");
    assert!(!staging.has(&need(b"hello")).unwrap());
    assert_eq!(staging.held().unwrap(), (0, 0));
    stage(&staging, b"hello").unwrap();
    assert!(staging.has(&need(b"hello")).unwrap());
}

#[test]
fn what_the_disk_was_told_to_write_is_not_durable_before_it_is_sealed() {
    let (_temp, work) = work();
    let staging = Staging::open(&work).unwrap();
    stage(&staging, b"hello").unwrap();
    staging.writing().unwrap()().unwrap();
    assert_eq!(staging.unsealed_bytes(), 5);
    assert!(Staging::open(&work).unwrap().lock().unproven.contains(&key(b"hello", 7)));
    staging.seal().unwrap();
    assert_eq!(staging.unsealed_bytes(), 0);
    assert!(Staging::open(&work).unwrap().lock().unproven.is_empty());
}

#[test]
fn several_attributes_of_one_content_become_several_files() {
    let (_temp, work) = work();
    let staging = Staging::open(&work).unwrap();
    let mut both = need(b"hello");
    both.keys.push(key(b"hello", 8));
    let mut writer = staging.writer(&both).unwrap();
    writer.push(b"hello").unwrap();
    writer.finish().unwrap();
    assert_eq!(staging.held().unwrap(), (10, 2));
    assert!(staging.has(&both).unwrap());
}

#[test]
fn long_runs_of_zeros_take_no_room() {
    use std::os::unix::fs::MetadataExt;
    let (temp, work) = work();
    let staging = Staging::open(&work).unwrap();
    let mut content = vec![0; 4 << 20];
    content[1 << 20] = 1;
    stage(&staging, &content).unwrap();
    let name = String::from_utf8(key(&content, 7).file_name()).unwrap();
    let path = temp.path().join("staging").join(name);
    assert_eq!(std::fs::read(&path).unwrap(), content);
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 <= 256 * 1024);
}

#[test]
fn files_that_another_program_wrote_are_taken_only_if_they_are_right() {
    let (temp, work) = work();
    let staging = Staging::open(&work).unwrap();
    std::fs::write(temp.path().join("good"), "hello").unwrap();
    std::fs::write(temp.path().join("bad"), "jello").unwrap();
    assert!(staging.take(&need(b"hello"), &work, b"bad").is_err());
    assert!(!staging.has(&need(b"hello")).unwrap());
    staging.take(&need(b"hello"), &work, b"good").unwrap();
    assert!(staging.has(&need(b"hello")).unwrap());
    assert!(!temp.path().join("good").exists());
}

#[test]
fn names_of_staged_files_are_reversible() {
    let group = Some(protocol::manifest::LinkGroup(0xabc));
    for key in [key(b"a", -5), FileKey { group, ..key(b"b", i64::MIN) }] {
        assert_eq!(FileKey::from_bytes(&key.file_name()), Some(key));
    }
    for name in ["tmp-1", "batches", "x-1-2"] {
        assert_eq!(FileKey::from_file_name(name), None);
    }
}
