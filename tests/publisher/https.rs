//! Manifests, packs and whole content over HTTPS.

use std::{fs, io::Write, os::unix::ffi::OsStrExt};

use protocol::{digest::Digest, path::TreePath};
use reqwest::Method;
use tests::fixture::{noise, prose};

use crate::reader::{Reader, Served};

#[test]
fn what_is_served_is_what_was_stated_and_names_of_any_bytes_survive() {
    let served = Served::start("limit = [\"- *.key\"]", "");
    served.write("one/a.txt", "a");
    served.write("one/d/private.key", "secret");
    let odd = served.upstream.join(std::ffi::OsStr::from_bytes(b"one/d/odd \xff\n%name"));
    fs::write(odd, "odd").unwrap();
    served.publish("one");
    let reader = served.reader("agent", "agent");
    let statement = reader.latest("one");
    let manifest = reader.manifest("one", &statement);
    let paths: Vec<&[u8]> = manifest.entries().iter().map(|entry| entry.path.as_bytes()).collect();
    assert_eq!(paths, [&b"a.txt"[..], b"d", b"d/odd \xff\n%name"]);
    let path = Reader::content_path("one", &statement.manifest, b"d/odd \xff\n%name");
    assert_eq!(reader.get(&path, &[]).body, b"odd");
    let hidden = Reader::content_path("one", &statement.manifest, b"d/private.key");
    assert_eq!(reader.get(&hidden, &[]).status, 404, "the limit is a wall");
    let dir = Reader::content_path("one", &statement.manifest, b"d");
    assert_eq!(reader.get(&dir, &[]).status, 404);
}

#[test]
fn a_download_is_resumed_and_never_spliced() {
    let served = Served::start("", "");
    let content = noise(1, 1_000_000);
    served.write("one/image", &content);
    served.write("one/other", "x");
    served.publish("one");
    let reader = served.reader("agent", "agent");
    let first = reader.latest("one");
    let path = Reader::content_path("one", &first.manifest, b"image");

    let whole = reader.get(&path, &[]);
    let etag = whole.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!((whole.status.as_u16(), &whole.body), (200, &content));
    assert_eq!(etag, format!("\"{}\"", Digest::of(&content).hex()));
    assert!(whole.headers["cache-control"].to_str().unwrap().contains("immutable"));
    let head = reader.ask(Method::HEAD, &path, &[]);
    assert_eq!(head.headers["content-length"], "1000000");
    assert!(head.body.is_empty());
    let rest = reader.get(&path, &[("range", "bytes=600000-"), ("if-range", &etag)]);
    assert_eq!((rest.status.as_u16(), &rest.body[..]), (206, &content[600_000..]));
    assert_eq!(rest.headers["content-range"], "bytes 600000-999999/1000000");
    let other = reader.get(&path, &[("range", "bytes=600000-"), ("if-range", "\"other\"")]);
    assert_eq!((other.status.as_u16(), other.body.len()), (200, 1_000_000));
    assert_eq!(reader.get(&path, &[("range", "bytes=1000000-")]).status, 416);
    assert_eq!(reader.get(&path, &[("if-none-match", &etag)]).status, 304);
    assert_eq!(reader.ask(Method::POST, &path, &[]).status, 400);

    served.write("one/image", noise(2, 1_000_000));
    served.publish("one");
    let resumed = reader.get(&path, &[("range", "bytes=600000-"), ("if-range", &etag)]);
    assert_eq!(resumed.body, content[600_000..], "the URL means the old generation for good");
    let newest = reader.latest("one");
    let path = Reader::content_path("one", &newest.manifest, b"image");
    let spliced = reader.get(&path, &[("range", "bytes=600000-"), ("if-range", &etag)]);
    assert_eq!((spliced.status.as_u16(), spliced.body.len()), (200, 1_000_000));
}

#[test]
fn nobody_reads_what_was_not_granted() {
    let served = Served::start("", "");
    served.write("one/a", "a");
    served.write("two/b", "b");
    served.publish("one");
    served.publish("two");
    let reader = served.reader("agent", "agent");
    assert_eq!(reader.get("/trees/one/latest", &[]).status, 200);
    let refused = reader.get("/trees/two/latest", &[]);
    assert_eq!(refused.status, 403);
    let problem: serde_json::Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!(problem["type"], "urn:mirrornet:problem:forbidden");
    for path in ["/trees/one/state.json", "/trees/one/../two/latest", "/", "/trees/one/scan"] {
        assert_eq!(reader.get(path, &[]).status.as_u16() / 100, 4, "{path}");
    }
    let admin = served.reader("admin", "eve");
    assert_eq!(admin.get("/trees/one/latest", &[]).status, 403);

    served.testbed.ctl(&["delete", "grant", "one@site"]);
    // What is open is closed, so a request may end without an answer.
    tests::wait_until("the grant's end to be effective", || {
        let answered = reader.try_ask(Method::GET, "/trees/one/latest", &[]);
        answered.is_ok_and(|answered| answered.status == 403)
    });
}

#[test]
fn content_that_was_edited_in_place_has_moved() {
    let served = Served::start("", "retain = { mode = \"hard-link\" }");
    served.write("one/log", "announced");
    served.write("one/still", "still");
    served.publish("one");
    let reader = served.reader("agent", "agent");
    let statement = reader.latest("one");
    let path = Reader::content_path("one", &statement.manifest, b"log");
    assert_eq!(reader.get(&path, &[]).body, b"announced");

    let file = served.upstream.join("one/log");
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    let mut open = fs::File::options().write(true).open(&file).unwrap();
    open.write_all(b"ANNOUNCED").unwrap();
    open.set_modified(modified).unwrap();
    let moved = reader.get(&path, &[]);
    assert_eq!(moved.status, 410, "{}", String::from_utf8_lossy(&moved.body));
    let problem: serde_json::Value = serde_json::from_slice(&moved.body).unwrap();
    assert_eq!(problem["type"], "urn:mirrornet:problem:source-moved");
    let still = Reader::content_path("one", &statement.manifest, b"still");
    assert_eq!(reader.get(&still, &[]).body, b"still");

    // The same size and time do not hide it from the next scan either.
    assert!(served.publish("one").contains("generation 2 announced"));
    let newest = reader.latest("one");
    let path = Reader::content_path("one", &newest.manifest, b"log");
    assert_eq!(reader.get(&path, &[]).body, b"ANNOUNCED");
}

#[test]
fn a_pack_leads_from_one_generation_to_the_next_also_after_an_edit_in_place() {
    let served = Served::start("", "retain = { mode = \"hard-link\" }");
    served.write("one/big", prose(1, 400_000));
    served.write("one/small", "same");
    served.publish("one");
    let mut file = fs::File::options().append(true).open(served.upstream.join("one/big")).unwrap();
    file.write_all(b"one more line\n").unwrap();
    drop(file);
    served.publish("one");
    let reader = served.reader("agent", "agent");
    let packs = served.publisher.data.join("trees/one/packs");
    let names: Vec<String> = fs::read_dir(packs)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let [name] = &names[..] else { panic!("one pack, not {names:?}") };
    let pack = reader.get(&format!("/trees/one/packs/{name}"), &[]);
    assert_eq!(pack.status, 200);
    assert_eq!(Digest::of(&pack.body).hex(), *name);
    assert!(pack.body.len() < 10_000, "{} bytes for one line", pack.body.len());
    let manifest = reader.manifest("one", &reader.latest("one"));
    let entry = manifest.get(&TreePath::parse(b"big").unwrap()).unwrap();
    assert_eq!(entry.size(), prose(1, 400_000).len() as u64 + 14);
}

#[test]
fn shared_objects_are_given_only_where_an_announced_generation_refers_to_them() {
    let served = Served::start("initial-pack = true", "");
    served.write("one/image", noise(1, 2_000_000));
    served.write("one/small", "first");
    served.publish("one");
    let objects = served.publisher.data.join("trees/one/objects");
    let names = || -> Vec<String> {
        let names = fs::read_dir(&objects).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let [name] = &names()[..] else { panic!("{:?}", names()) };
    let reader = served.reader("agent", "agent");
    let object = reader.get(&format!("/trees/one/objects/{name}"), &[]);
    assert_eq!((object.status.as_u16(), Digest::of(&object.body).hex()), (200, name.clone()));
    assert!(object.headers["cache-control"].to_str().unwrap().contains("immutable"));
    let part = [("range", "bytes=5-9")];
    assert_eq!(reader.get(&format!("/trees/one/objects/{name}"), &part).body, object.body[5..10]);

    // It lies there, but nothing that was announced says so.
    let hidden = Digest::of(b"hidden");
    fs::write(objects.join(hidden.hex()), "hidden").unwrap();
    assert_eq!(reader.get(&format!("/trees/one/objects/{}", hidden.hex()), &[]).status, 404);
    let other = reader.get(&format!("/trees/two/objects/{name}"), &[]);
    assert_eq!(other.status, 403, "another tree is another wall");

    // The next generation has the same image: it is neither made nor stored again.
    served.write("one/small", "second");
    served.publish("one");
    assert_eq!(names().len(), 2, "{:?}", names());
    assert_eq!(reader.get(&format!("/trees/one/objects/{name}"), &[]).status, 200);
}
