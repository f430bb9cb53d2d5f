//! Publication points: trees that come from a web server, a CDN or an object store, with real
//! servers in between and the origin out of reach.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tests::{
    Nginx, compare,
    fixture::{OneTree, noise, prose},
    link::{Line, Link},
    network::bytes_by,
    nginx::{self, Scheme},
    programs::{directory, isolate, succeed},
    rsyncd::free_port,
    stores::{self, Store},
};

use super::docs::blocks;

/// What a site needs to ask servers on this machine, certified by the network itself.
fn ask_here(net: &OneTree) -> String {
    let roots = net.agent.data.join("identity/ca.pem");
    format!("[points]\nprivate = [\"127.0.0.0/8\"]\nroots = {roots:?}\n")
}

/// A certificate for 127.0.0.1, and its key.
fn certificate(net: &OneTree) -> (PathBuf, PathBuf) {
    let identity = net.publisher.data.join("identity");
    (identity.join("server.pem"), identity.join("server-key.pem"))
}

/// What each point did in a run.
fn point<'a>(run: &'a Value, name: &str) -> &'a Value {
    let points = run["points"].as_array().into_iter().flatten();
    points.into_iter().find(|point| point["point"] == name).unwrap_or(&Value::Null)
}

fn fill(net: &OneTree, edited: &str) {
    for n in 0..20 {
        net.write(&format!("src/f{n}"), format!("{}{edited}", prose(n, 20_000)));
    }
    let mut image = noise(1, 2_000_000);
    image[1_000_000..1_000_000 + edited.len()].copy_from_slice(edited.as_bytes());
    net.write("image.bin", image);
}

#[test]
fn a_directory_behind_a_web_server_brings_a_tree_and_its_update_while_the_origin_is_gone() {
    let port = free_port();
    let base = format!("https://127.0.0.1:{port}/mirror");
    let mut net = OneTree::start(&format!("initial-pack = true\npoints = [\"{base}\"]"), "");
    let public = net.testbed.make_dir("public");
    net.configure_publisher(&format!("[[points]]\nkind = \"directory\"\npath = {public:?}\n"));
    net.configure_agent(&ask_here(&net));
    let (chain, key) = certificate(&net);
    let nginx = Nginx::start_at(
        &net.testbed.path("nginx"),
        ("127.0.0.1", port),
        Scheme::Tls(&chain, &key),
        "gzip on; gzip_types *; gzip_min_length 1;",
        &format!("location /mirror/ {{ alias {}/; }}", public.display()),
    );
    for edited in ["", "edited\n"] {
        fill(&net, edited);
        net.publish();
        assert!(net.publishing.end().success());
        let run = net.sync();
        net.assert_same();
        assert!(bytes_by(&run, "pack") > 0, "{run:#}");
        assert_eq!(bytes_by(&run, "whole") + bytes_by(&run, "rsync"), 0, "{run:#}");
        let served = point(&run, &base);
        assert!(served["received-bytes"].as_u64() > Some(0), "{run:#}");
        assert_eq!((&served["wrong"], &served["failed"]), (&0.into(), &0.into()), "{run:#}");
        net.publishing = net.testbed.run_publisher(&net.publisher);
    }
    let requests = nginx.requests();
    assert!(requests.iter().any(|line| line.contains("/packs/")), "{requests:#?}");
    for line in &requests {
        assert!(
            line.contains("protocol=HTTP/2.0") && line.contains("encoding=\"identity\""),
            "{line}"
        );
    }
    // A run asks for all that it needs over one connection.
    let connections: BTreeSet<&str> =
        requests.iter().filter_map(|line| line.split("connection=").nth(1)).collect();
    assert_eq!(connections.len(), 2, "for two runs: {requests:#?}");
    // A reader outside of the network finds the pointer, and it is the newest statement.
    let latest = fs::read(public.join("trees/tree/latest")).unwrap();
    assert!(!latest.is_empty());
}

#[test]
fn a_point_with_a_certificate_for_another_name_gives_nothing_and_the_tree_comes_by_another_way() {
    let port = free_port();
    // The certificate is for 127.0.0.1.
    let base = format!("https://127.0.0.2:{port}/mirror");
    let mut net = OneTree::start(&format!("initial-pack = true\npoints = [\"{base}\"]"), "");
    let public = net.testbed.make_dir("public");
    net.configure_publisher(&format!("[[points]]\nkind = \"directory\"\npath = {public:?}\n"));
    net.configure_agent(&ask_here(&net));
    let (chain, key) = certificate(&net);
    let nginx = Nginx::start_at(
        &net.testbed.path("nginx"),
        ("127.0.0.2", port),
        Scheme::Tls(&chain, &key),
        "",
        &format!("location /mirror/ {{ alias {}/; }}", public.display()),
    );
    fill(&net, "");
    let run = net.publish_and_sync();
    net.assert_same();
    let asked = point(&run, &base);
    assert!(asked["failed"].as_u64() > Some(0), "{run:#}");
    assert_eq!(asked["received-bytes"], 0, "{run:#}");
    assert!(point(&run, "origin")["received-bytes"].as_u64() > Some(0), "{run:#}");
    assert_eq!(nginx.requests(), [""; 0], "nothing is asked of whoever is not who he should be");
}

#[test]
fn a_point_that_a_site_does_not_allow_is_not_asked_and_the_report_says_so() {
    let port = free_port();
    let base = format!("http://127.0.0.1:{port}");
    let net = OneTree::start(&format!("points = [\"{base}\"]"), "");
    let nginx = Nginx::start_at(
        &net.testbed.path("nginx"),
        ("127.0.0.1", port),
        Scheme::Plain,
        "",
        "location / { return 404; }",
    );
    net.write("f", prose(1, 2_000));
    let run = net.publish_and_sync();
    net.assert_same();
    let notices = run["notices"].to_string();
    assert!(notices.contains(&base) && notices.contains("points.plain-http"), "{run:#}");
    assert_eq!(nginx.requests(), [""; 0]);
    net.configure_agent("[points]\nplain-http = true\nprivate = [\"127.0.0.1\"]\n");
    net.write("f", prose(2, 2_000));
    let run = net.publish_and_sync();
    net.assert_same();
    assert!(!nginx.requests().is_empty(), "{run:#}");
}

/// A cache in front of a public bucket, in slices.
fn cache(bucket: u16) -> (String, String) {
    let http = "proxy_cache_path @DIR@/cache keys_zone=mirror:1m max_size=1g;".to_owned();
    let from = format!("http://127.0.0.1:{bucket}/{}/mirror", stores::BUCKET);
    let server = format!(
        "proxy_cache mirror;
         proxy_http_version 1.1;
         location / {{
             slice 1m;
             proxy_cache_key $uri$slice_range;
             proxy_set_header Range $slice_range;
             proxy_cache_valid 200 206 1h;
             proxy_pass {from}/;
         }}
         location ~ /latest$ {{
             proxy_cache_valid 200 1s;
             proxy_pass {from}$uri;
         }}"
    );
    (http, server)
}

#[test]
fn through_a_cache_of_a_bucket_sites_are_served_that_have_no_way_to_the_origin() {
    let line = Line { bits_per_second: 400_000_000, ..Line::THIN };
    let Some(link) = Link::try_new(line) else { return };
    let (origin, port) = (link.origin(), free_port());
    let base = format!("https://{}:{port}", origin.address());
    let points = format!("initial-pack = true\npoints = [\"{base}\"]");
    let mut net = OneTree::start_over(&link, &points, "");
    // One store, two ways: who writes needs a signature, who reads comes as to a public bucket.
    let bucket = net.testbed.path("bucket");
    let (write, read) = (free_port(), free_port());
    let on_origin = |command: Command| origin.run(&command);
    let start =
        |port, checks| Store::start_by(stores::Kind::S3s, &bucket, port, checks, &on_origin);
    let (Some(_writing), Some(_reading)) = (start(write, true), start(read, false)) else { return };
    let credentials = net.testbed.path("s3.toml");
    stores::write_credentials(&credentials, stores::SECRET_KEY);
    // The origin is at an address that leads from the site to the site itself.
    let config = fs::read_to_string(&net.publisher.config).unwrap();
    let hidden = config.replace(&origin.address().to_string(), "127.0.0.1");
    assert_ne!(hidden, config);
    fs::write(&net.publisher.config, hidden).unwrap();
    net.configure_publisher(&format!(
        "[[points]]\nkind = \"object-store\"\nurl = \"s3://{}/mirror\"\nrequired = true\n\
         endpoint = \"http://127.0.0.1:{write}\"\ncredentials = {credentials:?}\n",
        stores::BUCKET
    ));
    let (chain, key) = certificate(&net);
    let (http, server) = cache(read);
    let at = (&*origin.address().to_string(), port);
    let dir = net.testbed.path("nginx");
    let nginx = Nginx::start_on(&origin, &dir, at, Scheme::Tls(&chain, &key), &http, &server);
    let allowed = format!(
        "rsync = \"/nonexistent/rsync\"\n[points]\nprivate = [\"{}\"]\nroots = {:?}\n",
        origin.address(),
        net.agent.data.join("identity/ca.pem")
    );
    net.configure_agent(&allowed);

    fill(&net, "");
    net.publish();
    let run = net.sync();
    net.assert_same();
    only_by(&run, &base);
    fill(&net, "edited\n");
    net.publish();
    let (run, traffic, _) = link.measure(|| net.sync());
    net.assert_same();
    only_by(&run, &base);
    assert!(traffic.bytes() < 400_000, "an update of 2.4 MB took {traffic:?}");

    // A second site finds what the first one asked for in the cache.
    let first = nginx.requests();
    net.testbed.apply(
        "[[site]]\nname = \"second\"\n[[grant]]\nsite = \"second\"\ntree = \"tree\"\n\
         [[assignment]]\nsite = \"second\"\ntree = \"tree\"\n",
    );
    let second = net.testbed.enroll_agent("second", "second");
    let config = fs::read_to_string(&second.config).unwrap();
    fs::write(&second.config, config + &allowed).unwrap();
    second.sync();
    compare::assert_same(&net.upstream, &second.published("tree"), &[]);
    let all = nginx.requests();
    let packs = |lines: &[String]| {
        lines.iter().filter(|line| line.contains("/packs/")).cloned().collect::<Vec<_>>()
    };
    let (first, second) = (packs(&first), packs(&all[first.len()..]));
    assert!(first.iter().any(|line| line.contains("cache=MISS")), "{first:#?}");
    assert!(!second.is_empty(), "{all:#?}");
    for line in first.iter().chain(&second) {
        // From the beginning, index and frames in one answer, or a part.
        let is_whole = line.contains(" 200 ") && line.contains("range=\"-\"");
        let is_part = line.contains(" 206 ") && line.contains("range=\"bytes=");
        assert!(is_whole || is_part, "{line}");
    }
}

/// Everything came from that point, and by packs.
fn only_by(run: &Value, base: &str) {
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    for way in run["ways"].as_array().unwrap() {
        assert!(way["way"] == "pack" || way["way"] == "metadata", "{run:#}");
        assert_eq!(way["point"], base, "{run:#}");
    }
    assert!(bytes_by(run, "pack") > 0, "{run:#}");
}

#[test]
fn the_how_to_about_cdns_works_as_it_is_written() {
    let mut net = OneTree::start("", "");
    net.write("f", prose(1, 2_000));
    net.publish_and_sync();
    let path = |name: &str| net.testbed.path(name).display().to_string();
    let (chain, key) = certificate(&net);
    let local = |text: &str| {
        text.replace("/etc/mirrornet/publisher.toml", net.publisher.config.to_str().unwrap())
            .replace("/etc/mirrornet/s3.toml", &path("s3.toml"))
            .replace("/etc/ssl/cdn.pem", chain.to_str().unwrap())
            .replace("/etc/ssl/cdn.key", key.to_str().unwrap())
            .replace("/srv/points", &path("points"))
            .replace("/var/cache/nginx/mirror", &path("cache"))
            .replace("443", &format!("127.0.0.1:{}", free_port()))
            .replace("https://s3.example.org", "https://127.0.0.1:9")
            .replace("project@lisbon", "tree@site")
            .replace("\"project\"", "\"tree\"")
            .replace("rotate-secret project", "rotate-secret tree")
    };
    let document =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/how-to/publish-through-a-cdn.md");
    let mut ran = 0;
    for (kind, block) in blocks(&document) {
        let block = local(&block);
        match kind.strip_prefix("toml file=") {
            Some("directory.toml" | "bucket.toml") => {
                let config = fs::read_to_string(&net.publisher.config).unwrap();
                fs::write(&net.publisher.config, config + &block).unwrap();
            }
            Some("s3.toml") => {
                use std::os::unix::fs::PermissionsExt as _;

                fs::write(path("s3.toml"), block).unwrap();
                fs::set_permissions(path("s3.toml"), fs::Permissions::from_mode(0o600)).unwrap();
            }
            Some("site.toml") => {
                net.configure_agent(&block);
                succeed(&mut net.agent.command(&["check-config"]));
            }
            Some(file) => fs::write(path(file), block).unwrap(),
            None if kind == "nginx" => {
                let (file, dir) = (path("nginx.conf"), path("nginx"));
                fs::create_dir_all(&dir).unwrap();
                let paths = format!("client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;");
                let text = format!(
                    "pid {dir}/pid; error_log stderr; events {{}}\nhttp {{ access_log off; {paths}\n{block}\n}}\n"
                );
                fs::write(&file, text).unwrap();
                let mut test = Command::new(nginx::program());
                isolate(&mut test);
                succeed(test.args(["-t", "-c", &file]));
            }
            None if kind == "sh" => {
                let mut shell = Command::new("sh");
                isolate(&mut shell);
                let path = std::env::var("PATH").unwrap();
                shell.env("PATH", format!("{}:{path}", directory().display()));
                shell.env("MIRRORNET_IDENTITY", net.testbed.coordinator_data().join("admin"));
                shell.current_dir(net.testbed.path(""));
                shell.args(["-e", "-c", &block]);
                if block.contains("rotate-secret") {
                    // The tree is for everybody here; private.rs exchanges the secret of one that is not.
                    let output = shell.output().unwrap();
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    assert!(said.contains("tree tree is not private"), "{said}");
                } else {
                    succeed(&mut shell);
                }
                ran += 1;
            }
            None => {}
        }
    }
    assert!(ran >= 3, "{ran} commands were run");
    // The directory fills when the publisher is started anew; the bucket, which is not there, stops nothing.
    assert!(net.publishing.end().success());
    net.publishing = net.testbed.run_publisher(&net.publisher);
    let public = net.testbed.path("points/trees/tree");
    net.publish();
    assert!(public.join("latest").exists());
    let packs = fs::read_dir(public.join("manifests")).unwrap().count();
    assert!(packs > 0);
}

#[test]
fn a_point_that_was_away_stops_nothing_and_is_brought_up_to_date() {
    let mut net = OneTree::start("initial-pack = true", "");
    let away = net.testbed.path("points");
    net.configure_publisher(&format!("[[points]]\nkind = \"directory\"\npath = {away:?}\n"));
    // A file is where the directory should be: nothing can be written there.
    let trees = away.join("trees");
    fs::remove_dir_all(&trees).ok();
    fs::write(&trees, "not a directory").unwrap();
    fill(&net, "");
    net.publish_and_sync();
    net.assert_same();
    assert!(
        net.publishing.log().contains("a publication point is behind"),
        "{}",
        net.publishing.log()
    );
    fs::remove_file(&trees).unwrap();
    net.publish();
    let own = net.publisher.data.join("trees/tree");
    let latest = |dir: &Path| fs::read(dir.join("latest")).unwrap();
    assert_eq!(latest(&own), latest(&trees.join("tree")));
    for kind in ["packs", "blocks", "manifests"] {
        let (own, there) = (own.join(kind), trees.join("tree").join(kind));
        assert_eq!(compare::sha256sums(&own), compare::sha256sums(&there), "{kind}");
    }
}

#[test]
fn a_large_payload_lies_once_at_a_point_for_all_packs_and_comes_from_there() {
    let port = free_port();
    let base = format!("https://127.0.0.1:{port}/mirror");
    let mut net = OneTree::start(&format!("initial-pack = true\npoints = [\"{base}\"]"), "");
    let public = net.testbed.make_dir("public");
    net.configure_publisher(&format!("[[points]]\nkind = \"directory\"\npath = {public:?}\n"));
    net.configure_agent(&ask_here(&net));
    let (chain, key) = certificate(&net);
    let nginx = Nginx::start_at(
        &net.testbed.path("nginx"),
        ("127.0.0.1", port),
        Scheme::Tls(&chain, &key),
        "",
        &format!("location /mirror/ {{ alias {}/; }}", public.display()),
    );
    let objects = public.join("trees/tree/objects");
    let count = || fs::read_dir(&objects).unwrap().count();
    let mut image = noise(1, 6_000_000);
    net.write("image.bin", &image);
    net.write("notes", prose(1, 5_000));
    net.publish();
    assert_eq!(count(), 1);
    // A generation with the same image shares it, in its pack from nothing.
    net.write("notes", prose(2, 5_000));
    net.publish();
    assert_eq!(count(), 1);
    assert!(net.publishing.end().success());
    let run = net.sync();
    net.assert_same();
    only_by(&run, &base);
    assert!(bytes_by(&run, "pack") > 6_000_000, "{run:#}");
    let requests = nginx.requests();
    let of_objects: Vec<_> = requests.iter().filter(|line| line.contains("/objects/")).collect();
    assert!(!of_objects.is_empty(), "{requests:#?}");
    assert!(of_objects.iter().all(|line| line.contains(" 206 ")), "{of_objects:#?}");

    // A third of the image changes: a payload of its own, and the old one stays for its grace time.
    net.publishing = net.testbed.run_publisher(&net.publisher);
    image[2_000_000..4_000_000].copy_from_slice(&noise(2, 2_000_000));
    net.write("image.bin", &image);
    net.publish();
    assert_eq!(count(), 3, "from the old image, from nothing, and the old one from nothing");
    assert!(net.publishing.end().success());
    let run = net.sync();
    net.assert_same();
    only_by(&run, &base);
    let came = bytes_by(&run, "pack");
    assert!((2_000_000..3_000_000).contains(&came), "{run:#}");
    let own = net.publisher.data.join("trees/tree/objects");
    assert_eq!(compare::sha256sums(&own), compare::sha256sums(&objects));
}

#[test]
fn what_no_other_way_brings_is_drawn_from_the_pack_of_everything_at_a_point() {
    let port = free_port();
    let base = format!("https://127.0.0.1:{port}/mirror");
    let mut net = OneTree::start(&format!("initial-pack = true\npoints = [\"{base}\"]"), "");
    let public = net.testbed.make_dir("public");
    net.configure_publisher(&format!("[[points]]\nkind = \"directory\"\npath = {public:?}\n"));
    net.configure_agent(&ask_here(&net));
    let (chain, key) = certificate(&net);
    let _nginx = Nginx::start_at(
        &net.testbed.path("nginx"),
        ("127.0.0.1", port),
        Scheme::Tls(&chain, &key),
        "",
        &format!("location /mirror/ {{ alias {}/; }}", public.display()),
    );
    fill(&net, "");
    net.write("large.bin", noise(7, 3_000_000));
    net.publish_and_sync();
    fill(&net, "edited\n");
    net.publish();
    // The pack that leads on is lost, and nobody answers at the origin.
    let packs = fs::read_dir(public.join("trees/tree/packs")).unwrap().map(|e| e.unwrap().path());
    let smallest = packs.min_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    fs::remove_file(smallest).unwrap();
    assert!(net.publishing.end().success());
    let run = net.sync();
    net.assert_same();
    only_by(&run, &base);
    let came = bytes_by(&run, "pack");
    assert!(came < 2_900_000, "more than what changed was drawn: {run:#}");
    let told = point(&run, &base)["detail"].to_string();
    assert!(told.contains("/packs/") && told.contains("404"), "{run:#}");
}

#[test]
fn damage_is_repaired_from_a_pack_at_a_point_while_nobody_answers_at_the_origin() {
    let port = free_port();
    let base = format!("https://127.0.0.1:{port}/mirror");
    let mut net = OneTree::start(&format!("initial-pack = true\npoints = [\"{base}\"]"), "");
    let public = net.testbed.make_dir("public");
    net.configure_publisher(&format!("[[points]]\nkind = \"directory\"\npath = {public:?}\n"));
    net.configure_agent(&ask_here(&net));
    let (chain, key) = certificate(&net);
    let _nginx = Nginx::start_at(
        &net.testbed.path("nginx"),
        ("127.0.0.1", port),
        Scheme::Tls(&chain, &key),
        "",
        &format!("location /mirror/ {{ alias {}/; }}", public.display()),
    );
    fill(&net, "");
    net.write("large.bin", noise(7, 3_000_000));
    net.publish_and_sync();
    assert!(net.publishing.end().success());
    fs::remove_file(net.mirror().join("large.bin")).unwrap();
    let verify = net.agent.command(&["verify", "tree"]).output().unwrap();
    assert!(verify.status.success(), "{}", tests::programs::told(&verify));
    net.assert_same();
}

#[test]
fn a_site_that_keeps_a_tenth_of_a_tree_fetches_little_more_than_a_tenth_of_a_pack() {
    let port = free_port();
    let base = format!("https://127.0.0.1:{port}/mirror");
    let tenth = "filter = [\"+ /part3/***\", \"- *\"]";
    let mut net = OneTree::start(&format!("points = [\"{base}\"]"), tenth);
    let public = net.testbed.make_dir("public");
    net.configure_publisher(&format!("[[points]]\nkind = \"directory\"\npath = {public:?}\n"));
    net.configure_agent(&ask_here(&net));
    let (chain, key) = certificate(&net);
    let nginx = Nginx::start_at(
        &net.testbed.path("nginx"),
        ("127.0.0.1", port),
        Scheme::Tls(&chain, &key),
        "",
        &format!("location /mirror/ {{ alias {}/; }}", public.display()),
    );
    let fill = |generation: u64| {
        for n in 0..400 {
            let mut content = prose(n, 12_000).into_bytes();
            let at = 1_000..4_000;
            content[at.clone()].copy_from_slice(&noise(n * 10 + generation, at.len()));
            net.write(&format!("part{}/f{n:03}", n % 10), content);
        }
    };
    fill(1);
    net.publish_and_sync();
    fill(2);
    net.publish();
    let before = nginx.requests().len();
    let run = net.sync();
    compare::assert_same(&net.upstream, &net.mirror(), &["+ /part3/***", "- *"]);
    assert_eq!(bytes_by(&run, "whole") + bytes_by(&run, "rsync"), 0, "{run:#}");
    let packs = fs::read_dir(public.join("trees/tree/packs")).unwrap();
    let packs: Vec<PathBuf> = packs.map(|pack| pack.unwrap().path()).collect();
    let [pack] = &packs[..] else { panic!("one pack, not {packs:?}") };
    let whole = fs::metadata(pack).unwrap().len();
    let sent = |line: &String| line.split("sent=").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    let of_pack = |line: &&String| line.contains("/packs/");
    let requests = nginx.requests().split_off(before);
    let fetched: u64 = requests.iter().filter(of_pack).filter_map(sent).sum();
    assert!(fetched * 100 <= whole * 15, "{fetched} of {whole} bytes: {requests:#?}");
    let count = requests.iter().filter(of_pack).count();
    assert!(count <= 3, "{requests:#?}");
}

#[test]
fn a_private_bucket_gives_agents_what_the_publisher_signed_for_them() {
    let mut net = OneTree::start("initial-pack = true\npoints = [\"signed\"]", "");
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
    fill(&net, "");
    net.publish();

    // A site whose admin did not allow that host takes everything from the publisher itself.
    let run = net.sync();
    net.assert_same();
    let signed = point(&run, "signed");
    assert_eq!(signed["received-bytes"], 0, "{run:#}");
    assert!(signed["detail"].to_string().contains("points.redirects"), "{run:#}");
    assert!(bytes_by(&run, "pack") > 0, "{run:#}");

    net.configure_agent(&format!("{}redirects = [\"127.0.0.1\"]\n", ask_here(&net)));
    fill(&net, "edited\n");
    net.publish();
    let before = nginx.requests().len();
    let run = net.sync();
    net.assert_same();
    only_by(&run, "signed");
    let requests = nginx.requests().split_off(before);
    // Index and frames in one answer.
    let packs: Vec<_> = requests.iter().filter(|line| line.contains("/packs/")).collect();
    assert!(packs.len() == 1 && packs[0].contains(" 200 "), "{packs:#?}");
    assert!(requests.iter().all(|line| line.starts_with("GET ")), "{requests:#?}");
    // Without a signature the bucket gives nothing.
    let object = requests[0].split(' ').nth(1).unwrap();
    let mut curl = Command::new("curl");
    isolate(&mut curl);
    curl.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]);
    let status = succeed(curl.arg(format!("{}{object}", store.endpoint())));
    assert_eq!(status, "403", "{object}");
}
