use protocol::{filter::Filter, manifest::Manifest, path::escape};

use super::*;

fn begin(rules: &[&str]) -> (tempfile::TempDir, Lines) {
    let dir = tempfile::tempdir().unwrap();
    let lines = Lines::begin(&Filter::parse(rules).unwrap(), dir.path()).unwrap();
    (dir, lines)
}

fn read_through(rules: &[&str], lines: &[&[u8]]) -> Listing {
    let (_dir, mut listing) = begin(rules);
    for line in lines {
        listing.push_line(line).unwrap();
    }
    listing.finish().unwrap()
}

fn read(lines: &[&[u8]]) -> Listing {
    read_through(&[], lines)
}

fn entries(listing: &Listing) -> Vec<Listed> {
    listing.each().collect::<Result<_, _>>().unwrap()
}

fn names(listing: &Listing) -> Vec<String> {
    entries(listing).iter().map(|entry| entry.path.to_string()).collect()
}

#[test]
fn what_rsync_prints_is_read() {
    let listing = read(&[
        b".d..t......|rwxr-xr-x|4096|2026/11/20-15:14:22|./",
        b"cd+++++++++|rwxr-xr-x|4096|2026/11/20-15:14:22|b/",
        b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|b/x|y",
        b"cL+++++++++|rwxrwxrwx|3|2026/11/20-15:14:22|a -> b/x",
    ]);
    assert_eq!(names(&listing), ["a", "b", "b/x|y"]);
    let file = &entries(&listing)[2];
    assert_eq!((file.mode, file.mtime), (0o644, 1_795_187_662));
    assert_eq!(file.kind, ListedKind::File { size: 7 });
    assert_eq!(entries(&listing)[0].kind, ListedKind::Symlink { target: (*b"b/x").into() });
}

#[test]
fn names_that_could_leave_the_tree_are_refused_by_name() {
    let listing = read(&[
        b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|../../etc/passwd",
        b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|/etc/passwd",
        b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|a/./b",
        b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|",
        b"cD+++++++++|rw-r--r--|7|2026/11/20-15:14:22|null",
        b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|orphan/file",
        b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|fine",
        b"skipping non-regular file \"dev/null\"",
    ]);
    assert_eq!(names(&listing), ["fine"]);
    assert_eq!(listing.refused.count, 6);
    assert!(listing.refused.named[0].starts_with("../../etc/passwd: "), "{:?}", listing.refused);
}

#[test]
fn a_file_named_twice_or_also_a_directory_is_taken_once() {
    let listing = read(&[
        b"cd+++++++++|rwxr-xr-x|4096|2026/11/20-15:14:22|a/",
        b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|a",
        b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|a/b",
    ]);
    assert_eq!(names(&listing), ["a", "a/b"]);
    assert_eq!(listing.refused.named, ["a: listed twice"]);
}

#[test]
fn control_bytes_and_backslashes_are_read_back() {
    let listing = read(&[
        br">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|new\#012line",
        br">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|back\slash",
        br">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|esc\#134#012",
        b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|\xff",
    ]);
    let entries = entries(&listing);
    let raw: Vec<&[u8]> = entries.iter().map(|entry| entry.path.as_bytes()).collect();
    assert_eq!(raw, [&br"back\slash"[..], br"esc\#012", b"new\nline", b"\xff"]);
}

#[test]
fn an_arrow_in_a_links_name_is_told_apart_by_the_targets_length_or_refused() {
    let listing = read(&[
        b"cL+++++++++|rwxrwxrwx|1|2026/11/20-15:14:22|a -> b -> c",
        b"cL+++++++++|rwxrwxrwx|0|2026/11/20-15:14:22|d -> e -> f",
        b"cL+++++++++|rwxrwxrwx|0|2026/11/20-15:14:22|g -> h",
    ]);
    assert_eq!(names(&listing), ["a -> b", "g"]);
    assert_eq!(listing.refused.count, 1);
}

#[test]
fn lines_of_another_form_stop_the_listing() {
    for line in [
        &b"hello"[..],
        b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22",
        b">f+++++++++|rw-r--r--|-7|2026/11/20-15:14:22|x",
        b">f+++++++++|rw-r--r--|7|2026/99/20-15:14:22|x",
        b">f+++++++++|bananas!!|7|2026/11/20-15:14:22|x",
        b">q+++++++++|rw-r--r--|7|2026/11/20-15:14:22|x",
        b">|rw-r--r--|7|2026/11/20-15:14:22|x",
        b">f+++++++++|rw-r--r--|99999999999999999999|2026/11/20-15:14:22|x",
    ] {
        let refused = begin(&[]).1.push_line(line);
        assert!(matches!(refused, Err(Error::Unreadable { .. })), "{:?}", escape(line));
    }
    let long = vec![b'x'; MAX_LINE + 1];
    assert_eq!(begin(&[]).1.push_line(&long), Err(Error::LineTooLong));
}

#[test]
fn what_the_filter_does_not_keep_is_not_there_and_nothing_inside_it() {
    let lines = [
        &b"cd+++++++++|rwxr-xr-x|4096|2026/11/20-15:14:22|skip/"[..],
        b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|skip/x",
        b">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|keep",
    ];
    let listing = read_through(&["- /skip"], &lines);
    assert_eq!(names(&listing), ["keep"]);
}

fn file(name: &str, size: usize) -> Vec<u8> {
    format!(">f+++++++++|rw-r--r--|{size}|2026/11/20-15:14:22|{name}").into_bytes()
}

/// In any order, and more than are sorted at a time.
#[test]
fn a_long_listing_comes_out_in_order_and_what_came_first_counts() {
    let (dir, mut lines) = begin(&[]);
    let name = |n: usize| format!("d{}/f{n:06}", n % 7);
    for n in 0..7 {
        let dir = format!("cd+++++++++|rwxr-xr-x|4096|2026/11/20-15:14:22|d{n}/");
        lines.push_line(dir.as_bytes()).unwrap();
    }
    const COUNT: usize = 100_000;
    for n in 0..COUNT {
        // 7,919 has no factor in common with the count.
        lines.push_line(&file(&name(n * 7_919 % COUNT), n)).unwrap();
    }
    // Far from their first, and beside it.
    for n in [0, 50_000, COUNT - 1] {
        lines.push_line(&file(&name(n * 7_919 % COUNT), 1 << 40)).unwrap();
    }
    lines.push_line(&file("nowhere/f", 1)).unwrap();
    let listing = lines.finish().unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(listing.refused.count, 3);
    let entries = entries(&listing);
    assert_eq!(entries.len(), COUNT + 7);
    assert!(entries.is_sorted_by(|a, b| a.path < b.path));
    for n in (0..COUNT).step_by(997) {
        let path = TreePath::parse(name(n * 7_919 % COUNT).as_bytes()).unwrap();
        assert_eq!(listing.get(&path).unwrap().unwrap().size(), n as u64);
    }
    let d3 = TreePath::parse(b"d3").unwrap();
    let below = listing.below(&d3).unwrap();
    let inside: Vec<_> = entries.iter().filter_map(|entry| entry.path.below(&d3)).collect();
    let seen: Vec<_> = below.each().map(|listed| listed.unwrap().path).collect();
    assert_eq!(seen, inside);
}

#[test]
fn a_listing_is_compared_with_what_is_held_and_has_a_digest_of_its_own() {
    let lines = [file("a", 1), file("b", 2)];
    let listing = read(&[&lines[0], &lines[1]]);
    let held = |size: u64| {
        let entry = |(name, size): (&str, u64)| {
            let digest = Digest::of(name.as_bytes());
            let kind = EntryKind::File { size, digest, link_group: None };
            let path = TreePath::parse(name.as_bytes()).unwrap();
            Entry { path, mode: 0o644, mtime: 1_795_187_662 * NANOS + 5, kind }
        };
        Manifest::new([("a", 1), ("b", size)].map(entry).to_vec()).unwrap()
    };
    assert!(listing.agrees_with(&held(2)).unwrap());
    assert!(!listing.agrees_with(&held(3)).unwrap());
    assert!(!listing.agrees_with(&Manifest::empty()).unwrap());
    let again = read(&[&lines[1], &lines[0]]);
    assert_eq!(again.digest().unwrap(), listing.digest().unwrap());
    assert_ne!(read(&[&lines[0]]).digest().unwrap(), listing.digest().unwrap());
}

#[test]
fn links_that_a_tree_may_not_have_are_left_out_by_name() {
    let link = |name: &str, target: &str| {
        let len = target.len();
        format!("cL+++++++++|rwxrwxrwx|{len}|2026/11/20-15:14:22|{name} -> {target}").into_bytes()
    };
    let lines = [link("in", "f"), link("out", "../f"), file("f", 1)];
    let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
    let listing = read(&lines).without_links(Symlinks::Inside).unwrap();
    assert_eq!(names(&listing), ["f", "in"]);
    assert_eq!(listing.refused.count, 1);
    assert!(listing.refused.named[0].starts_with("out: "));
    assert_eq!(names(&read(&lines).without_links(Symlinks::All).unwrap()), ["f", "in", "out"]);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let (_dir, mut lines) = begin(&[]);
        drop(lines.push_line(&line));
        let mut with_front = b">L+++++++++|rwxrwxrwx|3|2026/11/20-15:14:22|".to_vec();
        with_front.extend(line);
        drop(lines.push_line(&with_front));
        lines.finish().unwrap();
    }
}
