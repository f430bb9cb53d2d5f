//! Files of which only the attributes change.

use std::sync::Arc;

use super::{
    model::{Node, Spec, manifest, target},
    *,
};
use crate::{
    fs::{FailPlan, Fs},
    switch::SwitchOptions,
};

const FILES: usize = 300;

fn at(n: usize) -> String {
    format!("d{}/f{n:03}", n % 7)
}

/// Many files, so that several threads meet, and one that is copied in more than one piece.
fn spec(mtime: i64) -> Spec {
    let long = "long ".repeat(100_000);
    let content = |n| if n == 0 { long.clone() } else { format!("content {n}") };
    let file = |n| (at(n).into_bytes(), Node::File(content(n), 0o644, mtime));
    (0..FILES).map(file).collect()
}

#[test]
fn retouched_files_are_copied_on_several_threads_and_what_is_damaged_is_not() {
    let mut site = Site::new();
    site.sync(spec(LATER));
    // Someone wrote into two of them; one has the length that it had.
    std::fs::write(site.live().join(at(5)), "damaged").unwrap();
    std::fs::write(site.live().join(at(250)), "CONTENT 250").unwrap();
    let retouched = spec(LATER + 1_000_000_000);
    let want = manifest(&retouched);
    let mut area = site.open();
    let plan = area.plan(&site.have, View::AS_IS, &want, View::AS_IS).unwrap();
    assert_eq!(plan.all_copies().len(), FILES);

    let copying = area.copying(&plan, 1_000);
    assert!(copying.steps(&|| false).unwrap(), "there is more");
    assert!(!copying.steps(&|| true).unwrap(), "nothing is left");
    let missing: Vec<_> = copying.into_missing().iter().map(|need| need.path.clone()).collect();
    assert_eq!(missing, [path(&at(5)), path(&at(250))]);
    let staged = plan.all_copies().iter().filter(|(n, _)| area.staging().has(n).unwrap()).count();
    assert_eq!(staged, FILES - 3, "neither what is damaged nor what is too long for now");

    let options = SwitchOptions::new(site.now + 3_600);
    let refused = area.switch(&plan, &target(2, &want), &options).unwrap_err();
    let Error::Missing(needs) = refused else { panic!("{refused}") };
    assert_eq!(needs.iter().map(|need| need.path.clone()).collect::<Vec<_>>(), missing);
    model::stage(&area, &needs, &retouched).unwrap();
    area.switch(&plan, &target(2, &want), &options).unwrap();
    model::assert_same(&site.read(), &want);
}

#[test]
fn when_the_disk_is_full_for_one_thread_the_others_stop() {
    let mut site = Site::new();
    site.sync(spec(LATER));
    let want = manifest(&spec(LATER + 1_000_000_000));
    site.fs = Fs::disk();
    drop(site.open());
    let to_open = site.fs.counters().snapshot().count(Op::Create);
    let full = Arc::new(format!("create:{}:28", to_open + 1).parse::<FailPlan>().unwrap());
    site.fs = Fs::disk_failing(full.clone());
    let area = site.open();
    assert!(!full.fired());
    let plan = area.plan(&site.have, View::AS_IS, &want, View::AS_IS).unwrap();
    let error = area.copying(&plan, u64::MAX).steps(&|| true).unwrap_err();
    assert!(matches!(&error, Error::Fs(error) if error.is_full()), "{error}");
    let staged = plan.all_copies().iter().filter(|(n, _)| area.staging().has(n).unwrap()).count();
    assert!(staged < FILES / 2, "{staged} files were copied all the same");
}
