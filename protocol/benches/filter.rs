//! How fast names are filtered, beside the crates that come nearest.
//!
//! One million paths as they are found on a mirror, against 50 rules of the sorts that admins write,
//! on one core. `ignore` and `globset` get the same wishes in their own syntax; they cannot express
//! all of rsync's, so only such rules are used that mean the same to all three.
//!
//! Run with `cargo bench -p protocol --bench filter`; `MIRRORNET_BENCH_PATHS` sets another number.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use protocol::{filter::Filter, path::TreePath};

/// Rules that exclude, without the `- `.
fn patterns() -> Vec<String> {
    let mut all: Vec<String> = [
        "*.iso",
        "*.tmp",
        "*.drpm",
        "*~",
        ".*.swp",
        "*.torrent",
        "*-debuginfo-*.rpm",
        "linux-image-*-dbg_*.deb",
        "CHECKSUM.old",
        "/embargo/",
        "/private/keys/",
        "/pub/**/SRPMS/",
        "/pool/*/t/*-tests/",
        "source/",
        "debug/",
        "lost+found/",
        ".snapshot/",
        "*.[0-9].bak",
        "core.[0-9][0-9]*",
        "build-?.log",
        "armhfp/",
        "/dists/*/main/installer-s390x/",
        "*_mips*.deb",
        "*_hurd-i386.deb",
        "*.src.rpm",
    ]
    .map(str::to_owned)
    .to_vec();
    all.extend((0..15).map(|i| format!("/releases/{i}/archive/")));
    all.extend((0..10).map(|i| format!("unwanted-package-{i}")));
    assert_eq!(all.len(), 50);
    all
}

fn paths(count: usize) -> Vec<TreePath> {
    let sections = ["main", "contrib", "non-free"];
    let archs = ["amd64", "arm64", "mipsel", "all", "s390x"];
    let path = |i: usize| {
        let (section, arch) = (sections[i % 3], archs[i % 5]);
        let letter = char::from(b'a' + (i / 7 % 26) as u8);
        match i % 4 {
            0 => format!(
                "pool/{section}/{letter}/{letter}pkg{}/lib{letter}pkg{i}_1.{}-3_{arch}.deb",
                i / 50,
                i % 90
            ),
            1 => format!(
                "releases/{}/Everything/{arch}/os/Packages/{letter}/{letter}tool-{i}-2.fc{}.rpm",
                i % 43,
                i % 43
            ),
            2 => format!("dists/stable/{section}/binary-{arch}/by-hash/SHA256/{:064x}", i * 7919),
            _ => format!(
                "pub/archive/{}/{letter}/project-{}/file-{i}.tar.xz",
                2000 + i % 26,
                i / 100
            ),
        }
    };
    (0..count).map(|i| TreePath::parse(path(i).as_bytes()).unwrap()).collect()
}

fn gitignore(patterns: &[String]) -> Gitignore {
    let mut builder = GitignoreBuilder::new("");
    for pattern in patterns {
        builder.add_line(None, pattern).unwrap();
    }
    builder.build().unwrap()
}

/// The patterns as globs over whole paths, of entries and of what lies in them.
fn globset(patterns: &[String]) -> GlobSet {
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        let body = pattern.trim_end_matches('/');
        let glob = match body.strip_prefix('/') {
            Some(anchored) => anchored.to_owned(),
            None => format!("**/{body}"),
        };
        for glob in [glob.clone(), format!("{glob}/**")] {
            builder.add(GlobBuilder::new(&glob).literal_separator(true).build().unwrap());
        }
    }
    builder.build().unwrap()
}

/// The best of three runs, and how many were kept.
fn measure(count: usize, keeps: impl Fn(usize) -> bool) -> (Duration, usize) {
    let run = || {
        let started = Instant::now();
        let kept = (0..count).filter(|&at| black_box(keeps(at))).count();
        (started.elapsed(), kept)
    };
    (0..3).map(|_| run()).min().unwrap()
}

fn main() {
    let count = std::env::var("MIRRORNET_BENCH_PATHS").map_or(1_000_000, |n| n.parse().unwrap());
    let (patterns, paths) = (patterns(), paths(count));
    let rules: Vec<String> = patterns.iter().map(|pattern| format!("- {pattern}")).collect();
    let filter = Filter::parse(&rules).unwrap();
    let (gitignore, globset) = (gitignore(&patterns), globset(&patterns));
    let text = |path: &TreePath| std::str::from_utf8(path.as_bytes()).unwrap().to_owned();
    let texts: Vec<String> = paths.iter().map(text).collect();
    println!("{count} paths, {} rules, one core, best of three", patterns.len());
    println!("{:<58} {:>9} {:>9} {:>9}", "", "seconds", "ns/path", "kept");
    let show = |name: &str, (time, kept): (Duration, usize)| {
        let per_path = time.as_nanos() / count.max(1) as u128;
        println!("{name:<58} {:>9.3} {per_path:>9} {kept:>9}", time.as_secs_f64());
    };
    show(
        "this engine, the entry alone (as a walk asks)",
        measure(count, |i| filter.decide(&paths[i], false).kept),
    );
    show(
        "ignore, the entry alone",
        measure(count, |i| !gitignore.matched(&texts[i], false).is_ignore()),
    );
    show(
        "this engine, the entry and all directories above it",
        measure(count, |i| filter.keeps(&paths[i], false)),
    );
    show(
        "ignore, the entry and all directories above it",
        measure(count, |i| !gitignore.matched_path_or_any_parents(&texts[i], false).is_ignore()),
    );
    show(
        "globset, one set over whole paths, without order",
        measure(count, |i| !globset.is_match(&texts[i])),
    );
}
