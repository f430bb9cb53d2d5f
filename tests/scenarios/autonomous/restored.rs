//! A coordinator that comes back from a backup, and has forgotten generations that sites hold.

use std::fs;

use tests::{
    programs::{program, succeed, told},
    wait_until,
};

use super::Net;

impl Net {
    fn back_up(&self) {
        let mut command = program("coordinator");
        command.args(["backup", "--out"]).arg(self.testbed.path("backup"));
        succeed(command.arg("--config").arg(self.testbed.path("coordinator.toml")));
    }

    /// Puts the backup in the place of what the coordinator had, which does not run, and starts it.
    fn restore(&mut self) {
        let (data, old) = (self.testbed.coordinator_data(), self.testbed.path("coordinator.old"));
        fs::rename(&data, &old).unwrap();
        let mut command = program("coordinator");
        command.arg("restore").arg(self.testbed.path("backup")).arg("--data").arg(&data);
        succeed(command.arg("--revocations").arg(old.join("revocations")));
        self.testbed.start_coordinator();
    }
}

#[test]
fn what_a_restored_coordinator_has_forgotten_it_is_told_again_and_no_mirror_goes_back() {
    let mut net = Net::start("autonomous-after = \"2s\"");
    net.back_up();
    for number in [2, 3] {
        net.write(number);
        net.publish();
        net.agent.sync();
    }
    assert_eq!((net.held("free"), net.held("bound")), (Some(3), Some(3)));
    net.testbed.kill_coordinator();
    net.write(4);
    net.wait_for_publisher("generation 4");
    net.wait_for_content(4);

    net.restore();
    let said = told(&net.agent.run_once());
    assert_eq!((net.held("free"), net.held("bound")), (Some(4), Some(3)), "{said}");
    wait_until("the coordinator to be told again", || {
        let known = (net.generations("free"), net.generations("bound"));
        known.0 == [4, 3, 2, 1] && known.1.ends_with(&[3, 2, 1])
    });
    net.publish();
    net.agent.sync();
    assert_eq!((net.held("free"), net.held("bound")), (Some(4), Some(4)));
    let refused = net.testbed.ctl_json(&["events", "--kind", "generation-refused"]);
    assert_eq!(refused.as_array().map(Vec::len), Some(0), "{refused}");
    // From here on it goes as ever.
    net.write(5);
    net.publish();
    net.agent.sync();
    assert_eq!((net.held("free"), net.held("bound")), (Some(5), Some(5)));
    assert_eq!((net.generations("free")[0], net.generations("bound")[0]), (5, 5));
}
