use std::{
    fs as std_fs,
    io::Write,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::PathBuf,
};

use filetree::scan::{ScanOptions, ScanRecord, scan};

use super::*;

struct Bench {
    _dir: tempfile::TempDir,
    source: PathBuf,
    fs: Fs,
    views: Views,
    tree: TreeName,
}

impl Bench {
    fn new(mode: RetainMode) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        std_fs::create_dir(&source).unwrap();
        let fs = Fs::disk();
        let views = Views::open_at(&fs, &dir.path().join("view"), mode).unwrap();
        Self { _dir: dir, source, fs, views, tree: "t".parse().unwrap() }
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.source.join(path);
        std_fs::create_dir_all(path.parent().unwrap()).unwrap();
        let beside = path.with_extension("beside");
        std_fs::write(&beside, content).unwrap();
        std_fs::rename(beside, path).unwrap();
    }

    fn root(&self) -> Dir {
        self.fs.open_root(&self.source).unwrap()
    }

    fn scan(&self) -> Manifest {
        scan(&self.root(), &ScanRecord::empty(), &ScanOptions::new(i64::MAX)).unwrap().manifest
    }

    fn prepare(
        &self,
        number: u64,
        target: &Manifest,
        newest: Option<View<'_>>,
        spare: Option<View<'_>>,
    ) -> Result<bool, Error> {
        self.take(number, target, newest, spare).map(|taken| taken.shared)
    }

    fn take(
        &self,
        number: u64,
        target: &Manifest,
        newest: Option<View<'_>>,
        spare: Option<View<'_>>,
    ) -> Result<Taken, Error> {
        self.views.prepare(&self.tree, Generation(number), target, &self.root(), newest, spare)
    }

    /// What the private tree holds, as a scan sees it.
    fn held(&self, number: u64) -> Manifest {
        let dir = self.views.dir(&self.tree, Generation(number)).unwrap();
        scan(&dir, &ScanRecord::empty(), &ScanOptions::new(i64::MAX)).unwrap().manifest
    }

    fn open(
        &self,
        number: u64,
        shared: bool,
        manifest: &Manifest,
        path: &str,
    ) -> Result<File, Error> {
        let entry = manifest.get(&TreePath::parse(path.as_bytes()).unwrap()).unwrap();
        self.views.open(&self.tree, Generation(number), shared, entry)
    }
}

fn view(number: u64, manifest: &Manifest, shared: bool) -> Option<View<'_>> {
    Some(View { generation: Generation(number), manifest, shared })
}

#[test]
fn a_view_holds_exactly_its_manifest_in_every_mode_and_is_brought_forward() {
    for mode in [RetainMode::Auto, RetainMode::Content, RetainMode::HardLink] {
        let bench = Bench::new(mode);
        for n in 0..20 {
            bench.write(&format!("d{}/f{n}", n % 3), &format!("content {n}"));
        }
        std::os::unix::fs::symlink("../d0/f0", bench.source.join("d1/link")).unwrap();
        std_fs::hard_link(bench.source.join("d0/f0"), bench.source.join("d2/twin")).unwrap();
        let odd = std::ffi::OsStr::from_bytes(b"odd \xff\n name");
        std_fs::write(bench.source.join(odd), "bytes").unwrap();
        let first = bench.scan();
        let shared = bench.prepare(1, &first, None, None).unwrap();
        assert_eq!(bench.held(1), first, "{mode:?}");

        bench.write("d0/f3", "changed");
        std_fs::remove_dir_all(bench.source.join("d2")).unwrap();
        bench.write("d2", "a file where a directory was");
        std_fs::remove_file(bench.source.join("d1/link")).unwrap();
        bench.write("d1/link/inside", "a directory where a link was");
        let second = bench.scan();
        let shared = bench.prepare(2, &second, view(1, &first, shared), None).unwrap();
        assert_eq!(bench.held(2), second, "{mode:?}");
        assert_eq!(bench.held(1), first, "{mode:?}: the older one stays as it was");

        bench.write("d0/f6", "changed again");
        let third = bench.scan();
        let oldest = view(1, &first, shared);
        bench.prepare(3, &third, view(2, &second, shared), oldest).unwrap();
        assert_eq!(bench.held(3), third, "{mode:?}");
        assert_eq!(
            bench.views.generations(&bench.tree).unwrap(),
            [Generation(2), Generation(3)],
            "{mode:?}: the spare one was used"
        );
    }
}

#[test]
fn bringing_a_view_forward_costs_what_changed() {
    let bench = Bench::new(RetainMode::HardLink);
    for n in 0..500 {
        bench.write(&format!("d{}/f{n}", n % 10), "same");
    }
    let first = bench.scan();
    bench.prepare(1, &first, None, None).unwrap();
    bench.write("d1/f1", "changed");
    let second = bench.scan();
    bench.prepare(2, &second, view(1, &first, true), None).unwrap();
    bench.write("d2/f2", "changed");
    let third = bench.scan();
    let before = bench.fs.counters().mutations();
    bench.prepare(3, &third, view(2, &second, true), view(1, &first, true)).unwrap();
    let spent = bench.fs.counters().mutations() - before;
    assert_eq!(bench.held(3), third);
    assert!(spent < 30, "{spent} mutations for two files");
}

#[test]
fn content_edited_in_place_has_moved_and_is_never_given_out() {
    let bench = Bench::new(RetainMode::HardLink);
    bench.write("a", "announced");
    bench.write("b", "announced");
    let manifest = bench.scan();
    assert!(bench.prepare(1, &manifest, None, None).unwrap(), "shared with the source");
    bench.open(1, true, &manifest, "a").unwrap();
    let path = bench.source.join("a");
    let times = std_fs::metadata(&path).unwrap();
    let mut file = std_fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all(b"ANNOUNCED").unwrap();
    file.set_modified(times.modified().unwrap()).unwrap();
    assert_eq!(std_fs::metadata(&path).unwrap().size(), times.size());

    let moved = bench.open(1, true, &manifest, "a").unwrap_err();
    assert!(matches!(moved, Error::Moved { .. }), "{moved}");
    bench.open(1, true, &manifest, "b").unwrap();
}

#[test]
fn private_content_outlives_an_edit_in_place() {
    let bench = Bench::new(RetainMode::Content);
    bench.write("a", "announced");
    let manifest = bench.scan();
    assert!(!bench.prepare(1, &manifest, None, None).unwrap());
    std_fs::write(bench.source.join("a"), "ANNOUNCED").unwrap();
    let file = bench.open(1, false, &manifest, "a").unwrap();
    assert_eq!(digest(&file).unwrap(), Digest::of(b"announced"));
}

#[test]
fn a_source_that_changed_after_the_scan_makes_no_view() {
    let bench = Bench::new(RetainMode::Auto);
    bench.write("d/a", "scanned");
    let manifest = bench.scan();
    bench.write("d/a", "changed");
    let moved = bench.prepare(1, &manifest, None, None).unwrap_err();
    assert!(matches!(moved, Error::Moved { ref path } if path.as_bytes() == b"d/a"), "{moved}");
    assert_eq!(bench.views.generations(&bench.tree).unwrap(), []);
}

#[test]
fn a_view_on_another_file_system_says_that_it_had_to_copy() {
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else { return };
    let mut bench = Bench::new(RetainMode::Auto);
    bench.write("a", "a");
    let first = bench.scan();
    let near = bench.take(1, &first, None, None).unwrap();
    assert_eq!(near.copied, Some(false));
    if std_fs::metadata(other.path()).unwrap().dev()
        == std_fs::metadata(&bench.source).unwrap().dev()
    {
        return;
    }
    bench.views = Views::open_at(&bench.fs, other.path(), RetainMode::Auto).unwrap();
    let far = bench.take(1, &first, None, None).unwrap();
    assert_eq!(far, Taken { shared: false, copied: Some(true) });
    let again = bench.take(2, &first, view(1, &first, false), None).unwrap();
    assert_eq!(again.copied, None, "nothing came from the source");
    assert_eq!(bench.held(2), first);
}
