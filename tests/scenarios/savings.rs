//! What admins are told that a generation cost and saved, beside what the line itself counted.

use std::fs;

use serde_json::Value;
use tests::{
    Line, Link, Rsyncd,
    fixture::{OneTree, noise, prose},
    programs::{isolate, succeed},
    rsyncd::free_port,
};

/// What a run takes besides: two TLS handshakes, orders, a report, and headers of every packet.
const AROUND_BYTES: u64 = 60_000;
/// Packets' own headers, acknowledgements and TLS records, as a share of what they carry.
const AROUND_SHARE: f64 = 0.09;

/// Of a second, what `/proc` counts in.
const TICKS: u64 = 100;

/// CPU time that a process has taken, in milliseconds.
fn cpu_milliseconds(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let ticks = after_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    ticks * 1000 / TICKS
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// What `mirrorctl stats` says of a generation at the site.
fn saving(net: &OneTree, generation: u64) -> Value {
    let stats = net.testbed.ctl_json(&["stats"]);
    let savings = stats["savings"].as_array().unwrap().iter();
    let is_it = |one: &&Value| {
        let name = one["generation"].as_str().unwrap();
        name.ends_with(&format!("@{generation}")) && one["assignment"] == "tree@site"
    };
    savings.clone().find(is_it).unwrap_or_else(|| panic!("{stats:#}")).clone()
}

#[test]
fn what_generations_are_said_to_cost_and_save_is_what_the_line_counts() {
    let line = Line { bits_per_second: 400_000_000, ..Line::THIN };
    let Some(link) = Link::try_new(line) else { return };
    let net = OneTree::start_over(&link, "initial-pack = true", "");
    let fill = |generation: u64| {
        for n in 0..40 {
            let text = prose(n, 60_000);
            let (front, back) = text.split_at(20_000);
            net.write(&format!("src/f{n}"), format!("{front}of generation {generation}\n{back}"));
        }
        let mut image = noise(1, 3_000_000);
        image[1_000_000..1_500_000].copy_from_slice(&noise(generation + 1, 500_000));
        net.write("image", image);
    };
    let old = net.testbed.path("old");
    for generation in 1..=3 {
        fill(generation);
        let before = cpu_milliseconds(net.publishing.pid());
        net.publish();
        let taken = cpu_milliseconds(net.publishing.pid()) - before;
        let (_, traffic, _) = link.measure(|| net.sync());
        net.assert_same();

        let told = saving(&net, generation);
        let (moved, counted) = (number(&told["moved-bytes"]), traffic.bytes());
        let around = AROUND_BYTES + (moved as f64 * AROUND_SHARE) as u64;
        eprintln!("generation {generation}: {told} {counted} counted, {taken} ms");
        assert!(moved <= counted, "{moved} are told, {counted} went over the line");
        assert!(counted <= moved + around, "{moved} are told, {counted} went over the line");
        // Every file has changed, so whole files would be all that there is.
        let whole: u64 = walkdir::WalkDir::new(&net.upstream)
            .into_iter()
            .filter_map(|entry| entry.ok()?.metadata().ok().filter(|meta| meta.is_file()))
            .map(|meta| meta.len())
            .sum();
        assert_eq!(number(&told["whole-bytes"]), whole, "{told}");
        if generation > 1 {
            // The estimate knows sizes alone; what is saved against rsync is real.
            let estimate = number(&told["rsync-estimate-bytes"]);
            let rsync = by_rsync(&link, &net, &old);
            eprintln!("rsync -az: {rsync} counted, {estimate} estimated for rsync -a");
            assert!(
                moved * 4 < whole && moved < rsync && estimate < whole,
                "{told}, rsync: {rsync}"
            );
        }
        let mut keep = std::process::Command::new("rsync");
        keep.args(["-a", "--delete"]).arg(format!("{}/", net.upstream.display())).arg(&old);
        succeed(&mut keep);

        let name = format!("tree@{generation}");
        let list = net.testbed.ctl_json(&["get", "generations", &name]);
        let packs = list[0]["packs"].as_array().unwrap();
        let told: u64 = packs.iter().map(|p| number(&p["figures"]["cpu-milliseconds"])).sum();
        eprintln!("generation {generation}: {told} ms of {taken} ms");
        assert!(told > 0, "{list:#}");
        // Counted by /proc in hundredths of a second; the rest is the scan, the view and the talking.
        assert!(
            told <= taken + 20 && told * 2 >= taken,
            "{told} ms are told, {taken} ms were taken"
        );
    }
}

/// What the real rsync moves over the line to bring the old tree up.
fn by_rsync(link: &Link, net: &OneTree, old: &std::path::Path) -> u64 {
    let daemon = tempfile::tempdir().unwrap();
    let modules = [("tree", net.upstream.as_path())];
    let rsyncd = Rsyncd::start_at(&link.origin(), free_port(), daemon.path(), &modules, "");
    let mut rsync = std::process::Command::new("rsync");
    isolate(&mut rsync);
    rsync.args(["-az", "--checksum"]).arg(format!("{}tree/", rsyncd.url())).arg(old);
    let (_, traffic, _) = link.measure(|| succeed(&mut link.site().run(&rsync)));
    traffic.bytes()
}
