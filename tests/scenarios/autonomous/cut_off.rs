//! A network that falls into two parts: the coordinator is in one, the publisher in the other.

use std::fs;

use tests::{programs::told, valve::Valve, wait_until};

use super::{Net, Setup, held, testbed, wait_for_content};

#[test]
fn a_publisher_that_is_cut_off_goes_on_and_nobody_is_led_back_when_the_network_is_whole_again() {
    let testbed = testbed();
    let [for_publisher, for_agent] = [(); 2].map(|()| Valve::start(testbed.api(), u64::MAX));
    let setup = Setup {
        publisher: "autonomous-after = \"2s\"",
        valve: Some(for_publisher),
        ..Setup::default()
    };
    let net = Net::start_in(testbed, setup);
    let for_publisher = net.valve.as_ref().unwrap();
    // One more site, in the publisher's part.
    net.testbed.apply(
        "[[site]]\nname = \"far\"\n[[grant]]\nsite = \"far\"\ntree = \"free\"\n\
         [[assignment]]\nsite = \"far\"\ntree = \"free\"\n",
    );
    let far = net.testbed.enroll_agent("far", "far");
    let text = fs::read_to_string(&far.config).unwrap();
    fs::write(&far.config, format!("{text}{}", for_agent.setting())).unwrap();
    far.sync();
    assert_eq!(held(&far, "free"), Some(1));

    for_publisher.sever(true);
    for_agent.sever(true);
    for number in [2, 3] {
        net.write(number);
        net.wait_for_publisher(&format!("generation {number}"));
        // Whoever reaches the coordinator follows it, and sees no pointer.
        net.agent.sync();
        assert_eq!((net.held("free"), net.held("bound")), (Some(1), Some(1)));
    }
    wait_for_content(&far, 3);
    net.agent.sync();
    assert_eq!(net.held("free"), Some(1));
    assert_eq!(net.generations("free"), [1]);

    // That agent hears the coordinator again before the publisher does.
    for_agent.sever(false);
    for _ in 0..3 {
        let said = told(&far.run_once());
        assert_eq!(held(&far, "free"), Some(3), "{said}");
        assert!(!said.contains("FAILED"), "it waits, and nothing has failed: {said}");
    }

    for_publisher.sever(false);
    wait_until("the coordinator to be told", || {
        net.generations("free") == [3, 2, 1] && net.generations("bound").len() > 1
    });
    net.agent.sync();
    far.sync();
    assert_eq!((net.held("free"), net.held("bound")), (Some(3), Some(3)));
    assert_eq!(held(&far, "free"), Some(3));
    let refused = net.testbed.ctl_json(&["events", "--kind", "generation-refused"]);
    assert_eq!(refused.as_array().map(Vec::len), Some(0), "{refused}");
    // From here on it goes as ever.
    net.write(4);
    net.publish();
    net.agent.sync();
    far.sync();
    assert_eq!((net.held("free"), held(&far, "free")), (Some(4), Some(4)));
}
