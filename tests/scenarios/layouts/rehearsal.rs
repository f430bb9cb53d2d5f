//! Dry runs: R70 to R74. That nothing changes is looked at by [`Versions::rehearse`] each time.

use std::fs;

use super::Versions;

#[test]
fn r70_r71_r72_r73_r74_a_dry_run_says_what_would_be_done_and_does_nothing() {
    let mut net = Versions::start("layout = \"sealed\"\nlatest-link = \"latest\"", "");
    net.finished("v1", 1);
    net.finished("v2", 2);
    let report = net.rehearse();
    assert_eq!(report["result"], "SYNC_COMPLETED_DRY_RUN", "{report:#}");
    assert!(!net.agent.published("tree").exists(), "r73");
    let foreseen = &report["foreseen"];
    assert_eq!(foreseen["would-transfer"].as_array().unwrap().len(), 4, "{report:#}");
    assert!(foreseen["would-link"].to_string().contains("latest -> v2"), "{report:#}");

    net.redefine(
        "layout = \"versioned\"\nlatest-link = \"latest\"\ndelete-old-versions = true",
        "",
    );
    net.version("link", 3);
    net.sync();
    fs::write(net.at("v2/duplicate"), "of v2\n").unwrap();
    net.gone("v1");
    net.gone("link");
    net.link("link", "v2");
    net.file("v2", "content", "new\n", 8);
    let report = net.rehearse();
    assert_eq!(report["result"], "SYNC_COMPLETED_DRY_RUN", "{report:#}");
    let foreseen = &report["foreseen"];
    let list = |key: &str| foreseen[key].as_array().cloned().unwrap_or_default();
    assert_eq!(list("would-delete"), ["v1"], "r70: {report:#}");
    assert!(list("would-link").contains(&"link -> v2".into()), "r71: {report:#}");
    assert_eq!(list("would-transfer"), ["v2/content"], "{report:#}");

    net.sync();
    let report = net.rehearse();
    assert_eq!(report["result"], "SYNC_UP_TO_DATE_DRY_RUN", "{report:#}");
}
