//! The line between two hosts that other tests and the benchmarks stand on.

use std::time::Duration;

use tests::{
    Line, Link, Rsyncd,
    fixture::{OneTree, noise, write},
    network::bytes_by,
    programs::{isolate, succeed},
    rsyncd::free_port,
};

#[test]
fn a_line_has_its_delay_and_counts_what_goes_over_it() {
    let line = Line { bits_per_second: 200_000_000, ..Line::THIN };
    let Some(link) = Link::try_new(line) else { return };
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    write(&tree.join("file"), noise(1, 1_000_000));
    let daemon = dir.path().join("rsyncd");
    let rsyncd = Rsyncd::start_at(&link.origin(), free_port(), &daemon, &[("tree", &tree)], "");
    let mut rsync = std::process::Command::new("rsync");
    isolate(&mut rsync);
    rsync.arg("-a").arg(format!("{}tree/", rsyncd.url())).arg(dir.path().join("copy"));
    let (_, traffic, took) = link.measure(|| succeed(&mut link.site().run(&rsync)));
    assert!((1_000_000..1_200_000).contains(&traffic.down_bytes), "{traffic:?}");
    assert!(traffic.up_bytes < 100_000, "{traffic:?}");
    // A connection and a greeting are two round trips; what is faster does not go over the line.
    assert!(took > Duration::from_millis(200), "{took:?}");
}

#[test]
fn an_agent_far_away_syncs_over_a_lossy_line_and_says_how_many_bytes_it_took() {
    let Some(link) = Link::try_new(Line { loss: 0.01, ..Line::THIN }) else { return };
    let net = OneTree::start_over(&link, "", "");
    for n in 0..20 {
        net.write(&format!("file-{n}"), noise(n, 20_000));
    }
    net.publish();
    let (run, traffic, _) = link.measure(|| net.sync());
    net.assert_same();
    assert!(traffic.lost_packets > 0, "{traffic:?}");
    let told: u64 =
        ["pack", "whole", "rsync", "metadata"].iter().map(|way| bytes_by(&run, way)).sum();
    assert!(told > 400_000 && told < traffic.down_bytes, "{told} of {traffic:?}");
}
