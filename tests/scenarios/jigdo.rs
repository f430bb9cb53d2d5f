//! Files that say where other files are to be had from.

use std::{io::ErrorKind, net::TcpListener};

use tests::fixture::{OneTree, noise};

#[test]
fn a_jigdo_file_is_content_like_any_other_and_nothing_is_fetched_or_built_by_it() {
    let net = OneTree::start("", "");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let elsewhere = format!("http://{}", listener.local_addr().unwrap());
    net.write(
        "image.jigdo",
        format!(
            "[Jigdo]\nVersion=1.1\nGenerator=jigdo-file/0.8.0\n\n[Image]\nFilename=image.iso\n\
             Template={elsewhere}/image.template\nTemplate-MD5Sum=1B2M2Y8AsgTpgAmY7PhCfg\n\n\
             [Parts]\n1B2M2Y8AsgTpgAmY7PhCfg=Debian:../../../etc/passwd\n\
             rL0Y20zC-Fzt72VPzMSk2A=Local:part\n\n\
             [Servers]\nDebian={elsewhere}/\nDebian=file:///etc/\nLocal=./ --try-last\n"
        ),
    );
    let template =
        [&b"JigsawDownload template 1.0 jigdo-file/0.8.0 \r\n\r\nDATA"[..], &[0xff; 4096]];
    net.write("image.template", template.concat());
    net.write("part", noise(1, 10_000));
    let run = net.publish_and_sync();
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    net.assert_same();
    assert!(!net.mirror().join("image.iso").exists());
    let asked = listener.accept().map(|_| ());
    assert_eq!(asked.unwrap_err().kind(), ErrorKind::WouldBlock, "nobody was sent elsewhere");
}
