//! What it costs when nothing has changed.

use std::{
    fs,
    process::{Command, Output},
};

use tests::{
    fixture::OneTree,
    programs::{isolate, told},
};

/// Runs a command under strace and gives the system calls that name a path, a descriptor's included.
fn traced(net: &OneTree, command: &Command) -> (Output, String) {
    let trace = net.testbed.path("trace");
    let mut strace = Command::new("strace");
    isolate(&mut strace);
    strace.args(["-f", "-y", "-qq", "-e", "trace=file,desc,connect", "-o"]).arg(&trace);
    strace.arg(command.get_program()).args(command.get_args());
    let output = strace.output().unwrap();
    (output, String::from_utf8_lossy(&fs::read(trace).unwrap()).into_owned())
}

#[test]
fn a_process_start_asks_once_and_neither_opens_nor_stats_anything_in_an_unchanged_tree() {
    let mut net = OneTree::start("", "");
    for n in 0..50 {
        net.write(&format!("d{}/f{n}", n % 5), format!("content {n}"));
    }
    net.publish_and_sync();
    let of_agent = |log: &str| -> Vec<String> {
        let of_agent = log.lines().filter(|line| line.contains("peer=\"agent/agent\""));
        of_agent.map(str::to_owned).collect()
    };
    let before = of_agent(&net.testbed.coordinator().log()).len();
    let served = net.publishing.log().len();
    let (output, trace) = traced(&net, &net.agent.command(&["run", "--once"]));
    assert!(output.status.success(), "{}", told(&output));
    assert!(trace.contains("agent.json"), "strace saw nothing of the agent");
    let tree = net.mirror();
    let inside = format!("{}/", tree.display());
    let touched: Vec<&str> = trace.lines().filter(|line| line.contains(&inside)).collect();
    assert_eq!(touched, Vec::<&str>::new(), "calls inside the tree");
    let connected =
        trace.lines().filter(|line| line.contains("connect(") && line.contains("AF_INET"));
    assert_eq!(connected.count(), 1, "connections of the agent");
    // An answer without orders is not logged.
    let log = net.testbed.coordinator().log();
    assert_eq!(
        of_agent(&log)[before..],
        Vec::<String>::new(),
        "orders that it has were sent again"
    );
    assert_eq!(net.publishing.log().len(), served, "the publisher was asked for something");
}
