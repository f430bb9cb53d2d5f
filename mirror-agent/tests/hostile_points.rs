//! Publication points that answer wrongly in every way we could think of, for every kind of object.
//!
//! A table: each fault with each object, once where there is no other point (then the end is a
//! clean refusal that says why, or, where the fault passes, the right bytes), and once with a good
//! point behind (then the end is the right bytes, and the bad point is told apart in the report).
//! Whatever happens, no more is read than was signed.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "hostile_points/server.rs"]
mod server;
#[path = "hostile_points/tree.rs"]
mod tree;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use certs::{
    dial::{Dialer, Reach},
    live::public_http_client,
    signing,
    tls::PublicRoots,
};
use filetree::delta::ReadAt as _;
use futures_util::{StreamExt, stream};
use mirror_agent::{
    fetch::{
        allowed::{Allowed, PointsConfig},
        arrivals::Arrivals,
        manifest::{Store, fetch as fetch_manifest},
        pack::{Remote, open_work_file},
        pointer,
        points::{ORIGIN, Point, Points},
        ranges::{Ask, Patience},
        retries::get_from,
    },
    stage::Content,
};
use protocol::{
    digest::Digest,
    generation::{Revision, RootNumber},
    manifest::Manifest,
    origin,
    pack::{Index, PartOf, target_part},
    path::TreePath,
    statement::{Claim as _, Statement},
    v1::agent::PointReport,
};

use self::{
    server::{At, FAULTS, Fault, KINDS, Kind, Server},
    tree::{Tree, small_tree, tree, wide_tree},
};

const FAST: Patience = Patience { silence: Duration::from_millis(1_500), minimum_rate: 2_000 };
/// For many points at once on a busy machine.
const PATIENT: Patience = Patience { silence: Duration::from_secs(3), minimum_rate: 500 };
/// An address of this test's own: a port that another program has chosen stays free for it.
const HERE: &str = "127.0.0.2:0";
/// More than a read buffer, which is what can arrive beyond what is taken.
const SLACK: u64 = 512 << 10;
/// Longest that any case may take, on a busy machine.
const SOON: Duration = Duration::from_secs(90);

fn public_client() -> reqwest::Client {
    let reach = Reach::everywhere();
    public_http_client(&PublicRoots::none(), &Dialer::default(), &reach).unwrap()
}

fn point(tree: &Tree, name: &str, base: &str) -> Point {
    let client = public_client();
    let config = PointsConfig { plain_http: true, ..PointsConfig::default() };
    let point =
        Point::new(name, base, Arc::new(move || client.clone())).allowing(Allowed::new(&config));
    match tree.seal() {
        Some(sealed) => point.sealed_by(sealed),
        None => point,
    }
}

/// Fetches one object of that kind, and compares it. Gives what went wrong, and how many bytes may
/// have been read.
async fn fetch(tree: &Tree, kind: Kind, points: &Arc<Points>) -> Result<(), String> {
    fetch_with(FAST, tree, kind, points).await
}

async fn fetch_with(
    patience: Patience,
    tree: &Tree,
    kind: Kind,
    points: &Arc<Points>,
) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let offer = &tree.offer;
    let remote = Remote { points, tree: &tree.name, offer, patience };
    match kind {
        Kind::List | Kind::Block => {
            let store = Store::open(dir.path()).unwrap();
            let fetched =
                fetch_manifest(points, &store, &tree.name, &tree.statement, patience).await;
            fetched
                .map(|found| assert_eq!(found.load().unwrap(), tree.manifest))
                .map_err(|error| told(&error))
        }
        Kind::Index => remote.index().await.map(drop).map_err(|error| told(&error)),
        Kind::Frame | Kind::Object | Kind::Pack => {
            let found = match kind {
                Kind::Pack => remote.index_and_more(points).await,
                _ => remote.index().await.map(|index| (index, None)),
            };
            let (good, mut ahead) = found.map_err(|error| told(&error))?;
            let all = |number: &u32| {
                let (first, frames) = good.frames_around(*number).unwrap();
                let part = good.shared_part(&frames[(number - first) as usize]);
                part.is_some() == (kind == Kind::Object)
            };
            let all: Vec<u32> = (0..good.frame_count()).filter(all).collect();
            assert!(!all.is_empty());
            let file = open_work_file(dir.path(), &offer.pack).unwrap();
            remote
                .frames(&good, (&all, &mut ahead), &file, &Arrivals::default(), &|_| {})
                .await
                .map_err(|error| told(&error))?;
            let at = |offset: u64, len: usize| file.range(offset, len).unwrap();
            if kind != Kind::Object {
                let pack = &tree.files[&origin::pack_path(&tree.name, &offer.pack)];
                let begin = usize::try_from(offer.index_length).unwrap();
                assert_eq!(at(offer.index_length, pack.len() - begin), pack[begin..]);
                return Ok(());
            }
            assert_eq!(good.shared().len(), tree.objects.len());
            for part in good.shared() {
                let object = &tree.files[&origin::shared_path(&tree.name, &part.name)];
                let begin = usize::try_from(part.start).unwrap();
                assert_eq!(at(part.offset, object.len() - begin), object[begin..]);
            }
            Ok(())
        }
        Kind::Word | Kind::Orders | Kind::Roots => {
            let client = public_client();
            let base = &points.origin().unwrap().base;
            let api = protocol::client::Client::new(base, Arc::new(move || client.clone()));
            let said = match kind {
                Kind::Orders => api.agent_orders(Revision(0), Duration::ZERO).await.map(drop),
                Kind::Roots => api.roots(RootNumber(0)).await.map(drop),
                _ => api.whoami().await.map(drop),
            };
            said.map_err(|error| told(&error))
        }
        Kind::Pointer => {
            let mut last = String::new();
            for point in points.in_order() {
                match pointer::fetch(point, &tree.name, patience).await {
                    Ok(found) => {
                        let (kind, most) = (Statement::PAYLOAD_TYPE, Statement::MAX_LEN);
                        match signing::verify::<Statement>(
                            &found.statement,
                            kind,
                            &[tree.signer],
                            most,
                        ) {
                            Ok(said) => {
                                assert_eq!(said.content, tree.statement);
                                return Ok(());
                            }
                            Err(error) => last = format!("another signature: {}", told(&error)),
                        }
                    }
                    Err(error) => last = told(&error),
                }
            }
            Err(last)
        }
        Kind::Whole => {
            let Content { digest, size, path } = &tree.content;
            let path = origin::content_path(&tree.name, &tree.manifest.digest(), path);
            let mut last = String::new();
            for point in points.in_order() {
                let mut bytes = Vec::new();
                let ask = Ask::whole(path.clone(), *size);
                let got = get_from(point, &ask, patience, |piece| {
                    bytes.extend_from_slice(piece);
                    Ok(())
                });
                match got.await {
                    Ok(()) if Digest::of(&bytes) == *digest => return Ok(()),
                    Ok(()) => last = "another digest".into(),
                    Err(error) => last = told(&error),
                }
                assert!(bytes.len() as u64 <= *size, "{} bytes of {size}", bytes.len());
            }
            Err(last)
        }
    }
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Most bytes that are signed for everything that a fetch of that kind asks for.
fn signed(tree: &Tree, kind: Kind) -> u64 {
    let packed = |bytes: u64| bytes + bytes / 64 + 1024;
    match kind {
        Kind::List | Kind::Block => {
            let list = tree.manifest.list();
            let blocks: u64 = list.blocks().iter().map(|block| packed(block.bytes)).sum();
            packed(tree.statement.manifest_length) + blocks
        }
        Kind::Index => tree.offer.index_length,
        Kind::Frame | Kind::Object | Kind::Pack => tree.offer.total_length(),
        Kind::Pointer => pointer::MAX_LEN,
        Kind::Whole => tree.content.size,
        Kind::Word | Kind::Orders | Kind::Roots => protocol::client::MAX_ANSWER as u64,
    }
}

/// Whether the fault has no effect on that kind: what is asked for without a range has none.
fn is_harmless(kind: Kind, fault: Fault) -> bool {
    let ranged = matches!(kind, Kind::Index | Kind::Frame | Kind::Object);
    matches!(fault, Fault::ShiftedRange | Fault::RangeOfAnotherLength | Fault::NoContentRange)
        && !ranged
        // A transfer that broke off goes on by itself.
        || matches!(fault, Fault::FirstStatus(503))
}

async fn case(tree: &Arc<Tree>, kind: Kind, fault: Fault) {
    let bad = Server::start(tree, kind, fault).await;
    let base = format!("http://{}", bad.address);
    let alone = Arc::new(Points::new(vec![point(tree, ORIGIN, &base)]));
    let begun = Instant::now();
    let fetched = tokio::time::timeout(SOON, fetch(tree, kind, &alone));
    let fetched = fetched.await.unwrap_or_else(|_| panic!("{kind:?} {fault:?} hangs"));
    let report: PointReport = alone.reports().remove(0);
    // What breaks off goes on where it was; so it may end well, but never with other bytes.
    let goes_on = matches!(fault, Fault::Cut(_) | Fault::Reset(_));
    if let Err(why) = &fetched {
        assert!(!is_harmless(kind, fault), "{kind:?} {fault:?}: {why}");
        assert!(why.contains("http://") || why.contains("another "), "{why}");
    }
    let once = signed(tree, kind) + SLACK;
    // A retry reads a small thing again from its beginning; what is large goes on.
    let tries = 3;
    let read = report.received_bytes;
    assert!(read <= once * tries, "{kind:?} {fault:?}: {read} bytes were read of {once}");

    let good = Server::start(tree, kind, Fault::None).await;
    let again = Server::start(tree, kind, fault).await;
    let both = Arc::new(Points::new(vec![
        point(tree, "bad", &format!("http://{}", again.address)),
        point(tree, "good", &format!("http://{}", good.address)),
    ]));
    let fetched = tokio::time::timeout(SOON, fetch(tree, kind, &both));
    let fetched = fetched.await.unwrap_or_else(|_| panic!("{kind:?} {fault:?} hangs"));
    assert_eq!(fetched, Ok(()), "{kind:?} {fault:?} with a good point behind");
    let reports = both.reports();
    let noted = reports[0].failed + reports[0].wrong;
    let used_good = good.paths.lock().unwrap().len();
    // What is wrong in whole content, or with a signature, is found by whoever takes it.
    let found_here = !matches!(kind, Kind::Whole | Kind::Pointer);
    if fault != Fault::None && !goes_on && found_here && used_good > 0 {
        assert!(noted > 0 && !reports[0].detail.is_empty(), "{kind:?} {fault:?}: {reports:?}");
    }
    let took = begun.elapsed();
    assert!(took < SOON, "{kind:?} {fault:?} took {took:?}");
}

async fn all_cases(tree: &Arc<Tree>, kinds: &[Kind]) {
    let mut cases = Vec::new();
    for &kind in kinds {
        for &fault in FAULTS {
            cases.push((kind, fault));
        }
    }
    let run = |(kind, fault)| async move { case(tree, kind, fault).await };
    let count = stream::iter(cases).map(run).buffer_unordered(24).count().await;
    assert_eq!(count, kinds.len() * FAULTS.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_point_answers_the_end_is_the_signed_bytes_or_a_refusal() {
    let dir = tempfile::tempdir().unwrap();
    all_cases(&Arc::new(tree(dir.path())), &KINDS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_point_answers_about_a_private_tree_the_end_is_the_signed_bytes_or_a_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Arc::new(tree(dir.path()).sealed(dir.path()));
    // Whole files lie at the publisher alone, and are not sealed there.
    let kinds: Vec<Kind> = KINDS.into_iter().filter(|kind| *kind != Kind::Whole).collect();
    all_cases(&tree, &kinds).await;
}

/// Numbers that look random, by seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ mixed >> 31) >> 1).unwrap() % end
    }

    /// Those that need long waits come now and then.
    fn fault(&mut self) -> Fault {
        loop {
            let fault = FAULTS[self.below(FAULTS.len())];
            let waits = matches!(
                fault,
                Fault::HangBeforeHead
                    | Fault::HangAfterHead
                    | Fault::Slow
                    | Fault::Endless
                    | Fault::EndlessHead
            );
            if !waits || self.below(24) == 0 {
                return fault;
            }
        }
    }
}

/// One to three points, each with its own faults for its own kinds of objects, and everything that a
/// first sync asks for. What some point gives as it should arrives; the rest is refused.
async fn combination(tree: &Arc<Tree>, number: u64) {
    let mut random = Random(number);
    let (mut servers, mut points) = (Vec::new(), Vec::new());
    let mut good: Vec<Kind> = Vec::new();
    for at in 0..1 + random.below(3) {
        let mut faults = Vec::new();
        // A pack is spoiled by what its parts are.
        for kind in KINDS.into_iter().filter(|kind| *kind != Kind::Pack) {
            match random.below(3) {
                0 => good.push(kind),
                _ => faults.push((kind, random.fault())),
            }
        }
        let server = Server::start_with(tree, &faults).await;
        points.push(point(tree, &format!("point{at}"), &format!("http://{}", server.address)));
        servers.push((server, faults));
    }
    let points = Arc::new(Points::new(points));
    let said = |what: &str| -> String {
        let faults: Vec<_> = servers.iter().map(|(_, faults)| faults).collect();
        format!("combination {number}: {what}: {faults:?}")
    };
    for kind in KINDS {
        let fetched = tokio::time::timeout(SOON, fetch_with(PATIENT, tree, kind, &points)).await;
        let fetched = fetched.unwrap_or_else(|_| panic!("{}", said("hangs")));
        // Frames and objects need the index, blocks the list.
        let needs: &[Kind] = match kind {
            Kind::Frame | Kind::Object => &[Kind::Index],
            Kind::Pack => &[Kind::Index, Kind::Frame],
            Kind::List | Kind::Block => &[Kind::List, Kind::Block],
            _ => &[],
        };
        if (kind == Kind::Pack || good.contains(&kind))
            && needs.iter().all(|kind| good.contains(kind))
        {
            assert_eq!(fetched, Ok(()), "{}", said(&format!("{kind:?}")));
        }
    }
    // Every point is asked for each thing at most three times, and gives no more than was signed.
    let signed: u64 = KINDS.iter().map(|kind| signed(tree, *kind) + SLACK).sum();
    for report in points.reports() {
        let read = report.received_bytes;
        assert!(read <= 3 * signed, "{}", said(&format!("{read} bytes of {signed}")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_several_points_answer_together_the_end_is_the_signed_bytes_or_a_refusal() {
    let count = std::env::var("MIRRORNET_HOSTILE_CASES").ok().and_then(|n| n.parse().ok());
    let dir = tempfile::tempdir().unwrap();
    let tree = &Arc::new(small_tree(dir.path()));
    let numbers = stream::iter(0..count.unwrap_or(400));
    let run = |number| async move { combination(tree, number).await };
    numbers.map(run).buffer_unordered(16).count().await;
}

#[tokio::test]
async fn a_lie_costs_one_frame_once_more_and_is_counted_for_the_one_who_told_it() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Arc::new(tree(dir.path()));
    let liar = Server::start(&tree, Kind::Frame, Fault::Flip(At::Last)).await;
    let good = Server::start(&tree, Kind::Frame, Fault::None).await;
    let points = Arc::new(Points::new(vec![
        point(&tree, "liar", &format!("http://{}", liar.address)),
        point(&tree, "good", &format!("http://{}", good.address)),
    ]));
    fetch(&tree, Kind::Frame, &points).await.unwrap();
    let reports = points.reports();
    assert_eq!((reports[0].wrong, reports[0].failed), (1, 0), "{reports:?}");
    assert_eq!((reports[1].wrong, reports[1].failed), (0, 0), "{reports:?}");
    let remote = Remote { points: &points, tree: &tree.name, offer: &tree.offer, patience: FAST };
    let index = remote.index().await.unwrap();
    let largest = index.frames_around(0).unwrap().1;
    let largest = largest.iter().map(|frame| u64::from(frame.stored_len)).max().unwrap();
    let again = reports[1].received_bytes;
    assert!(again <= largest, "{again} bytes came twice, a frame has at most {largest}");
    assert!(index.frame_count() > 1, "the test needs several frames");
}

#[tokio::test]
async fn ranges_of_a_pack_and_of_its_objects_are_under_way_at_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Arc::new(tree(dir.path()));
    // Frames of the pack in one range, and those of each of two objects.
    let wanted = 1 + tree.objects.len();
    let together = [Kind::Frame, Kind::Object].map(|kind| (kind, Fault::Together(wanted)));
    let server = Server::start_with(&tree, &together).await;
    let points =
        Arc::new(Points::new(vec![point(&tree, "point", &format!("http://{}", server.address))]));
    let patience = Patience { silence: SOON, minimum_rate: 0 };
    let remote = Remote { points: &points, tree: &tree.name, offer: &tree.offer, patience };
    let index = remote.index().await.unwrap();
    let all: Vec<u32> = (0..index.frame_count()).collect();
    let file = open_work_file(dir.path(), &tree.offer.pack).unwrap();
    let to = (&file, &Arrivals::default());
    remote.frames(&index, (&all, &mut None), to.0, to.1, &|_| {}).await.unwrap();
    let most = server.most_waiting.load(Ordering::SeqCst);
    assert_eq!(most, wanted, "{:?}", server.paths.lock().unwrap());
}

/// What of the index a site fetches that keeps one directory of twenty.
async fn fetch_part(tree: &Tree, points: &Points) -> Result<Index, String> {
    let remote = Remote { points, tree: &tree.name, offer: &tree.offer, patience: FAST };
    let keeps = |path: &TreePath, _: bool| path.as_bytes().starts_with(b"d07");
    let fetched = remote.index_for(&Manifest::empty(), &keeps).await;
    let index = fetched.map_err(|error| told(&error))?;
    let held = PartOf {
        digest: Manifest::empty().digest(),
        from: &Manifest::empty(),
        keeps: &keeps,
        filter: tree.offer.to,
    };
    let part = target_part(&index, held, |_| Ok::<_, protocol::pack::Error>(())).unwrap();
    let kept = tree.manifest.entries().iter().filter(|entry| keeps(&entry.path, true));
    assert_eq!(part.list.entry_count(), kept.count() as u64);
    for op in index.ops() {
        let (_, op) = op.unwrap();
        let entry = tree.manifest.get(op.path()).unwrap();
        let is_absent = matches!(op.content(), Some(protocol::pack::Content::Absent));
        assert!(!keeps(op.path(), false) || !is_absent && op.path() == &entry.path);
    }
    Ok(index)
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_an_index_are_verified_one_by_one_whatever_a_point_says() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Arc::new(wide_tree(dir.path()));
    let good = Server::start(&tree, Kind::Frame, Fault::None).await;
    let good = format!("http://{}", good.address);
    let points = Arc::new(Points::new(vec![point(&tree, "good", &good)]));
    let index = fetch_part(&tree, &points).await.unwrap();
    assert!(!index.is_whole());
    let (all, fetched) = (tree.offer.index_length, points.reports()[0].received_bytes);
    assert!(fetched * 5 <= all, "{fetched} of {all} bytes");
    let most = fetched + SLACK;
    stream::iter(FAULTS)
        .map(|&fault| {
            let (tree, good) = (Arc::clone(&tree), good.clone());
            async move {
                // Ranges that do not begin at the beginning: the blocks behind the front.
                let bad = Server::start(&tree, Kind::Frame, fault).await;
                let bad = format!("http://{}", bad.address);
                let both = [("bad", &bad), ("good", &good)];
                let points = both.map(|(name, base)| point(&tree, name, base));
                let points = Points::new(points.into());
                let fetched = tokio::time::timeout(SOON, fetch_part(&tree, &points)).await;
                let index = fetched.unwrap_or_else(|_| panic!("{fault:?} hangs")).unwrap();
                assert!(!index.is_whole(), "{fault:?}");
                let read = points.reports()[0].received_bytes;
                assert!(read <= 3 * most, "{fault:?}: {read} bytes were read");
                let alone = Arc::new(Points::new(vec![point(&tree, "bad", &bad)]));
                let ended = tokio::time::timeout(SOON, fetch_part(&tree, &alone)).await;
                if let Err(why) = ended.unwrap_or_else(|_| panic!("{fault:?} hangs")) {
                    assert!(why.contains("pack"), "{fault:?}: {why}");
                }
            }
        })
        .buffer_unordered(16)
        .count()
        .await;
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to_as_if_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Arc::new(tree(dir.path()));
    let plain = Server::start(&tree, Kind::List, Fault::None).await;
    let points =
        Arc::new(Points::new(vec![point(&tree, "cdn", &format!("https://{}", plain.address))]));
    let why = fetch(&tree, Kind::List, &points).await.unwrap_err();
    assert!(why.contains("https://"), "{why}");
    assert_eq!(points.reports()[0].received_bytes, 0);
}

#[tokio::test]
async fn a_wrong_answer_instead_of_the_coordinators_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Arc::new(tree(dir.path()));
    let ask = |server: &Server| {
        let origin = point(&tree, ORIGIN, &format!("http://{}", server.address));
        Arc::new(Points::new(vec![origin]))
    };
    for kind in [Kind::Word, Kind::Orders, Kind::Roots] {
        let good = Server::start(&tree, kind, Fault::None).await;
        fetch(&tree, kind, &ask(&good)).await.unwrap();
        for &fault in FAULTS {
            let passes = matches!(
                fault,
                // What the coordinator says is signed where it matters, which others check.
                Fault::Flip(_) | Fault::Encoded(_) | Fault::FirstStatus(_)
                // A minute of patience: a long poll is allowed to be silent.
                | Fault::HangBeforeHead | Fault::HangAfterHead | Fault::Slow
            );
            // That there is nothing newer is an answer; a head that is not renewed expires.
            let nothing_new = kind == Kind::Orders && fault == Fault::Status(304);
            if passes || nothing_new || is_harmless(kind, fault) {
                continue;
            }
            let bad = Server::start(&tree, kind, fault).await;
            let answer = tokio::time::timeout(SOON, fetch(&tree, kind, &ask(&bad))).await;
            let why = answer.unwrap_or_else(|_| panic!("{kind:?} {fault:?} hangs")).unwrap_err();
            assert!(why.contains("coordinator"), "{kind:?} {fault:?}: {why}");
        }
    }
}

#[tokio::test]
async fn frames_behind_an_index_come_with_it_in_parts_and_what_a_point_lies_about_once_more() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Arc::new(tree(dir.path()));
    let is_own = |index: &Index, number: &u32| {
        let (first, frames) = index.frames_around(*number).unwrap();
        index.shared_part(&frames[(number - first) as usize]).is_none()
    };
    for (fault, asked) in [(Fault::None, 1), (Fault::Flip(At::Last), 1)] {
        let (bad, good) = (
            Server::start(&tree, Kind::Pack, fault).await,
            Server::start(&tree, Kind::Pack, Fault::None).await,
        );
        let points = Arc::new(Points::new(vec![
            point(&tree, "first", &format!("http://{}", bad.address)),
            point(&tree, "second", &format!("http://{}", good.address)),
        ]));
        let remote =
            Remote { points: &points, tree: &tree.name, offer: &tree.offer, patience: FAST };
        let (index, mut ahead) = remote.index_and_more(&points).await.unwrap();
        assert!(ahead.is_some());
        let own: Vec<u32> = (0..index.frame_count()).filter(|n| is_own(&index, n)).collect();
        let (one, rest) = own.split_at(own.len() / 2);
        assert!(!one.is_empty() && !rest.is_empty(), "the test needs several frames");
        let work = tempfile::tempdir().unwrap();
        let file = open_work_file(work.path(), &tree.offer.pack).unwrap();
        for part in [one, rest] {
            let numbers = (part, &mut ahead);
            remote.frames(&index, numbers, &file, &Arrivals::default(), &|_| {}).await.unwrap();
        }
        let pack = &tree.files[&origin::pack_path(&tree.name, &tree.offer.pack)];
        let begin = usize::try_from(tree.offer.index_length).unwrap();
        let came = file.range(tree.offer.index_length, pack.len() - begin).unwrap();
        assert_eq!(came, pack[begin..]);
        assert_eq!(bad.paths.lock().unwrap().len(), asked, "all of it is one answer");
        let lies = u64::from(fault != Fault::None);
        let reports = points.reports();
        assert_eq!((reports[0].wrong, reports[0].failed), (lies, 0), "{reports:?}");
        assert_eq!(good.paths.lock().unwrap().len() as u64, lies);
    }
}
