//! Private trees: who carries them, or lists what lies at a point, learns neither names nor content.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tests::{
    Nginx,
    fixture::{OneTree, noise, prose},
    network::bytes_by,
    nginx::Scheme,
    rsyncd::free_port,
    stores::{self, Store},
    wait_until,
};

/// Stands in the names of files and in their content, also where nothing compresses it away.
const CANARY: &str = "canary-7f3a9c";

fn ask_here(net: &OneTree) -> String {
    let roots = net.agent.data.join("identity/ca.pem");
    format!("[points]\nprivate = [\"127.0.0.0/8\"]\nroots = {roots:?}\n")
}

fn certificate(net: &OneTree) -> (PathBuf, PathBuf) {
    let identity = net.publisher.data.join("identity");
    (identity.join("server.pem"), identity.join("server-key.pem"))
}

/// Small files, and one whose payload is an object of its own.
fn fill(net: &OneTree, edited: &str) {
    for n in 0..10 {
        let content = format!("{CANARY}\n{}{edited}", prose(n, 20_000));
        net.write(&format!("{CANARY}/file{n}"), content);
    }
    let mut image = noise(1, 4_000_000);
    for at in (0..image.len() - 100).step_by(500_000) {
        image[at..at + CANARY.len()].copy_from_slice(CANARY.as_bytes());
    }
    // Small against what is new, so that the old object goes on being shared.
    image.extend_from_slice(edited.as_bytes());
    net.write(&format!("{CANARY}.bin"), image);
    net.write(&format!("{CANARY}-kept.bin"), noise(2, 3_000_000));
}

/// Files below a directory whose path or content has something that nobody should see: a canary,
/// the tree's name, or the form of a pack, a statement or a zstd frame.
fn telling(dir: &Path) -> Vec<String> {
    let mut telling = Vec::new();
    for entry in walkdir::WalkDir::new(dir).into_iter().map(Result::unwrap) {
        let path = entry.path().strip_prefix(dir).unwrap().display().to_string();
        let named = path.contains(CANARY) || path.split('/').any(|part| part == "tree");
        let bytes =
            if entry.file_type().is_file() { fs::read(entry.path()).unwrap() } else { vec![] };
        let has = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
        let begins = |magic: &[u8]| bytes.starts_with(magic);
        if named
            || has(CANARY.as_bytes())
            || has(b"mirrornet")
            || begins(b"MNPK")
            || begins(&[0x28, 0xb5, 0x2f, 0xfd])
            || begins(b"{")
        {
            telling.push(path);
        }
    }
    telling
}

/// The generation whose key opens each stored object, by its header.
fn generations(dir: &Path) -> Vec<u64> {
    let files = walkdir::WalkDir::new(dir).into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file());
    let mut numbers: Vec<u64> = files
        .map(|entry| {
            let bytes = fs::read(entry.path()).unwrap();
            assert!(bytes.starts_with(b"MNPRIV\x01"), "{}", entry.path().display());
            u64::from_be_bytes(bytes[16..24].try_into().unwrap())
        })
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn only_by(run: &Value, base: &str) {
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    for way in run["ways"].as_array().unwrap() {
        assert!(way["way"] == "pack" || way["way"] == "metadata", "{run:#}");
        assert_eq!(way["point"], base, "{run:#}");
    }
    assert!(bytes_by(run, "pack") > 0, "{run:#}");
}

struct World {
    net: OneTree,
    public: PathBuf,
    base: String,
    nginx: Nginx,
}

/// A directory that a web server gives to everybody, as a point of the tree.
fn start(tree: &str) -> World {
    let port = free_port();
    let base = format!("https://127.0.0.1:{port}/mirror");
    let tree = format!("{tree}\ninitial-pack = true\npoints = [\"{base}\"]");
    let mut net = OneTree::start(&tree, "");
    let public = net.testbed.make_dir("public");
    net.configure_publisher(&format!("[[points]]\nkind = \"directory\"\npath = {public:?}\n"));
    net.configure_agent(&ask_here(&net));
    let nginx = serve(&net, &public, port);
    World { net, public, base, nginx }
}

fn serve(net: &OneTree, public: &Path, port: u16) -> Nginx {
    let (chain, key) = certificate(net);
    Nginx::start_at(
        &net.testbed.path("nginx"),
        ("127.0.0.1", port),
        Scheme::Tls(&chain, &key),
        "",
        &format!("location /mirror/ {{ alias {}/; }}", public.display()),
    )
}

#[test]
fn a_private_tree_comes_through_a_point_that_learns_neither_its_names_nor_its_content() {
    let World { mut net, public, base, nginx } = start("private = true");
    for edited in ["", "edited\n", "edited again\n"] {
        fill(&net, edited);
        net.publish();
        // The way to the origin is cut: what comes, comes from the point.
        assert!(net.publishing.end().success());
        let run = net.sync();
        net.assert_same();
        only_by(&run, &base);
        net.publishing = net.testbed.run_publisher(&net.publisher);
    }
    // The search finds what there is to be found: at the publisher itself.
    assert!(!telling(&net.publisher.data.join("trees")).is_empty());
    assert_eq!(telling(&public), [""; 0]);
    // Each generation has a key of its own, the pointer none of them; what is shared stays.
    assert_eq!(generations(&public), [0, 1, 2, 3]);
    let requests = nginx.requests();
    // The first answer of each begins with the index, and goes on with frames.
    assert!(requests.iter().any(|line| line.contains("/packs/") && line.contains(" 200 ")));
    assert!(requests.iter().any(|line| line.contains("/objects/")), "{requests:#?}");
    for line in &requests {
        assert!(!line.contains(CANARY) && !line.contains("trees/tree/"), "{line}");
    }

    // What is damaged at the point is noticed, and comes from the publisher instead.
    fill(&net, "edited for the last time\n");
    net.publish();
    for entry in walkdir::WalkDir::new(&public).into_iter().map(Result::unwrap) {
        if entry.file_type().is_file() {
            let mut bytes = fs::read(entry.path()).unwrap();
            for at in (100..bytes.len()).step_by(10_000) {
                bytes[at] ^= 1;
            }
            fs::write(entry.path(), bytes).unwrap();
        }
    }
    let run = net.sync();
    net.assert_same();
    let points = run["points"].as_array().unwrap();
    let wrong = points.iter().find(|point| point["point"] == base.as_str()).unwrap();
    assert!(wrong["wrong"].as_u64() > Some(0), "{run:#}");
}

#[test]
fn a_private_tree_in_a_bucket_is_sealed_there_and_read_by_signed_urls() {
    let tree = "private = true\ninitial-pack = true\npoints = [\"signed\"]";
    let mut net = OneTree::start(tree, "");
    let dir = net.testbed.path("bucket");
    let Some(store) = Store::start(stores::Kind::S3s, &dir) else { return };
    let (chain, key) = certificate(&net);
    let server = format!(
        "client_max_body_size 0; proxy_http_version 1.1;
         location / {{ proxy_pass {}; proxy_set_header Host $http_host; }}",
        store.endpoint()
    );
    let nginx = Nginx::start(&net.testbed.path("nginx"), Scheme::Tls(&chain, &key), "", &server);
    let credentials = net.testbed.path("s3.toml");
    stores::write_credentials(&credentials, stores::SECRET_KEY);
    let roots = net.agent.data.join("identity/ca.pem");
    net.configure_publisher(&format!(
        "[[points]]\nkind = \"object-store\"\nurl = \"s3://{}/mirror\"\nrequired = true\n\
         endpoint = \"https://127.0.0.1:{}\"\nroots = {roots:?}\n\
         credentials = {credentials:?}\nsigned-urls = true\n",
        stores::BUCKET,
        nginx.port(),
    ));
    net.configure_agent(&format!("{}redirects = [\"127.0.0.1\"]\n", ask_here(&net)));
    for edited in ["", "edited\n"] {
        fill(&net, edited);
        net.publish();
        let run = net.sync();
        net.assert_same();
        only_by(&run, "signed");
    }
    let bucket = dir.join(stores::BUCKET).join("mirror");
    assert_eq!(telling(&bucket), [""; 0]);
    assert_eq!(generations(&bucket), [0, 1, 2]);
}

#[test]
fn what_lay_at_a_point_before_its_tree_became_private_goes_and_the_tree_stays() {
    let World { net, public, base, nginx: _nginx } = start("");
    fill(&net, "");
    net.publish_and_sync();
    net.assert_same();
    assert!(!telling(&public).is_empty(), "it is for everybody");
    let private = format!(
        "[[tree]]\nname = \"tree\"\nsource = \"source\"\npath = \"tree\"\ninterval = \"1h\"\n\
         private = true\ninitial-pack = true\npoints = [\"{base}\"]\n"
    );
    net.testbed.apply(&private);
    fill(&net, "edited\n");
    net.publish();
    let run = net.sync();
    net.assert_same();
    only_by(&run, &base);
    assert_eq!(telling(&public), [""; 0]);
    let described = net.testbed.ctl(&["describe", "tree", "tree"]);
    assert!(described.contains("private"), "{described}");
}

#[test]
fn keys_are_kept_for_the_agents_user_alone_and_are_enough_while_nobody_else_answers() {
    use std::os::unix::fs::PermissionsExt as _;

    let World { mut net, public, base, nginx } = start("private = true");
    let port = nginx.port();
    nginx.stop();
    fill(&net, "");
    net.publish();
    assert!(net.publishing.end().success());
    // Everything is known of the target, and nothing comes.
    net.agent.run_once();
    assert!(!net.mirror().join(CANARY).exists());
    let keys = net.agent.data.join("ledger/keys/tree.json");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&keys), mode(keys.parent().unwrap())), (0o600, 0o700));
    net.testbed.kill_coordinator();
    let _nginx = serve(&net, &public, port);
    wait_until("the tree to come from the point", || {
        net.agent.run_once();
        net.mirror().join(CANARY).exists()
    });
    net.assert_same();
    assert!(base.contains(&port.to_string()));
}

/// Names of trees at the point: aliases of private ones.
fn names_at(public: &Path) -> Vec<String> {
    let names = fs::read_dir(public.join("trees")).into_iter().flatten().map(Result::unwrap);
    let mut names: Vec<_> = names.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Has what lay under former names lain there for two days.
fn let_time_pass(net: &mut OneTree) {
    assert!(net.publishing.end().success());
    let file = net.publisher.data.join("trees/tree/aliases.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let former = record["former"].as_object_mut().unwrap();
    assert!(!former.is_empty(), "{former:?}");
    for since in former.values_mut() {
        *since = (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(48)).to_string().into();
    }
    fs::write(&file, serde_json::to_vec(&record).unwrap()).unwrap();
    net.publishing = net.testbed.run_publisher(&net.publisher);
}

#[test]
fn after_a_rotation_agents_follow_and_what_the_old_secret_sealed_goes_after_a_while() {
    let World { mut net, public, base, nginx: _nginx } = start("private = true");
    fill(&net, "");
    net.publish_and_sync();
    net.assert_same();
    let [old] = &names_at(&public)[..] else { panic!("{:?}", names_at(&public)) };
    let told = net.testbed.ctl(&["rotate-secret", "tree"]);
    assert!(told.contains("another secret"), "{told}");
    wait_until("the publisher to bring everything under another name", || {
        let names = names_at(&public);
        let pointer = |name: &String| public.join("trees").join(name).join("latest").exists();
        names.len() == 2 && names.iter().all(pointer)
    });
    assert!(names_at(&public).contains(old), "somebody may be in the middle of reading it");
    // Nothing of the next generation lies where the old keys lead. The way to the origin is cut.
    let count =
        |name: &str| walkdir::WalkDir::new(public.join("trees").join(name)).into_iter().count();
    let before = count(old);
    fill(&net, "edited\n");
    net.publish();
    assert_eq!(count(old), before);
    assert!(net.publishing.end().success());
    let run = net.sync();
    net.assert_same();
    only_by(&run, &base);
    let wrong = run["points"].as_array().unwrap().iter().map(|point| point["wrong"].as_u64());
    assert!(wrong.into_iter().all(|wrong| wrong.unwrap_or(0) == 0), "{run:#}");
    net.publishing = net.testbed.run_publisher(&net.publisher);
    assert_eq!(telling(&public), [""; 0]);
    let_time_pass(&mut net);
    wait_until("what the old secret sealed to go", || !names_at(&public).contains(old));
    let [new] = &names_at(&public)[..] else { panic!("{:?}", names_at(&public)) };

    // For everybody again: what is sealed goes as well, after the same while.
    net.testbed.apply(&format!(
        "[[tree]]\nname = \"tree\"\nsource = \"source\"\npath = \"tree\"\ninterval = \"1h\"\n\
         initial-pack = true\npoints = [\"{base}\"]\n"
    ));
    fill(&net, "edited for everybody\n");
    net.publish();
    let run = net.sync();
    net.assert_same();
    only_by(&run, &base);
    assert_eq!(names_at(&public).len(), 2, "{:?}", names_at(&public));
    let_time_pass(&mut net);
    wait_until("what was sealed to go", || !names_at(&public).contains(new));
    assert_eq!(names_at(&public), ["tree"]);
    let run = {
        fill(&net, "edited once more\n");
        net.publish_and_sync()
    };
    net.assert_same();
    only_by(&run, &base);
}
