//! What a run costs when nothing has changed.

use std::process::Command;

use tests::{
    fixture::{OneTree, prose, write},
    programs::{isolate, succeed},
};

use crate::figure::Figure;

const FILES: u64 = 10_000;

pub(crate) fn run() -> Vec<Figure> {
    let net = OneTree::start("", "");
    for n in 0..FILES {
        write(&net.upstream.join(format!("d{:02}/f{n:05}", n % 100)), prose(n, 300));
    }
    net.publish_and_sync();
    let once = net.agent.command(&["run", "--once"]);
    let trace = net.testbed.path("trace");
    let mut strace = Command::new("strace");
    isolate(&mut strace);
    strace.args(["-f", "-y", "-qq", "-e", "trace=file,desc", "-o"]).arg(&trace);
    strace.arg(once.get_program()).args(once.get_args());
    succeed(&mut strace);
    let trace = String::from_utf8_lossy(&std::fs::read(trace).unwrap()).into_owned();
    let tree = net.mirror();
    let inside = format!("{}/", tree.display());
    let touched = trace.lines().filter(|line| line.contains(&inside)).count();
    vec![Figure {
        what: format!("system calls inside an unchanged tree of {FILES} files"),
        ours: touched as f64,
        unit: "calls",
        peer: None,
        most: 0.0,
    }]
}
