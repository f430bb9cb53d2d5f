//! A publisher that goes on without its coordinator, and is killed at each step in turn.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use tests::{programs::told, wait_until};

use super::pointers::{World, leads_to_whole};

/// Steps at which it is disturbed, evenly among all.
const DISTURBED: usize = 8;

/// Which content each number was ever seen to have.
type Seen = BTreeMap<u64, String>;

/// Looks where the pointers lead: to what is whole, and to no second content of a number.
fn look(places: &[PathBuf], seen: &mut Seen, when: &str) {
    for place in places {
        let statement = leads_to_whole(place).unwrap_or_else(|wrong| panic!("{when}: {wrong}"));
        let statement = statement.unwrap();
        let (number, manifest) = (statement.generation.0, statement.manifest.to_string());
        let known = seen.entry(number).or_insert_with(|| manifest.clone());
        assert_eq!(*known, manifest, "{when}: generation {number} has two contents");
    }
}

/// Runs a publisher that is disturbed there until it has gone on alone, or has ended. Whether it ended.
fn run_alone(world: &World, fail_at: Option<&str>, steps: &Path) -> bool {
    let mut daemon = world.start_disturbed(fail_at, steps);
    let mut said = String::new();
    wait_until("the publisher to go on alone, or to end", || {
        said = told(&world.publish());
        daemon.has_ended() || said.contains("went on alone") || said.contains("unchanged since")
    });
    let has_ended = daemon.has_ended();
    assert!(fail_at.is_some() || !has_ended, "{said}");
    daemon.end();
    has_ended
}

#[test]
fn whatever_happens_to_a_publisher_that_is_alone_no_number_has_two_contents_and_all_is_told() {
    let tree = "initial-pack = true\nautonomous = true";
    let mut world = World::prepare_with(tree, "autonomous-after = \"1s\"", 300_000);
    let public = world.served.testbed.make_dir("public");
    world.add_point(&format!("kind = \"directory\"\npath = {public:?}"));
    let places = [world.own(), public.join("trees/one")];
    let mut seen = Seen::new();
    world.write_next();
    world.served.start_again();
    world.publish_well();
    world.served.stop();
    look(&places, &mut seen, "before");
    world.served.testbed.kill_coordinator();

    let log = world.served.testbed.path("steps");
    world.write_next();
    run_alone(&world, None, &log);
    look(&places, &mut seen, "undisturbed");
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [1, 2]);
    let steps = fs::read_to_string(&log).unwrap().lines().count();
    let mut killed = 0;
    for number in 0..DISTURBED {
        // SIGKILL, or a disk that is full at this one step.
        let at = 1 + number * steps / DISTURBED;
        let fail_at = if number % 3 < 2 { format!("any:{at}") } else { format!("any:{at}:28") };
        world.write_next();
        killed += usize::from(run_alone(&world, Some(&fail_at), &log));
        look(&places, &mut seen, &fail_at);
    }
    assert!(killed > 1, "of {DISTURBED} times it was killed {killed} times, of {steps} steps");

    world.served.testbed.start_coordinator();
    world.served.start_again();
    let listed = || world.served.testbed.ctl_json(&["get", "generations", "one"]);
    wait_until("the coordinator to have what lies upstream", || {
        let said = told(&world.publish());
        said.contains("unchanged since")
    });
    look(&places, &mut seen, "told");
    let taken: Seen = listed()
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let number = one["version"]["generation"].as_u64().unwrap();
            (number, one["manifest"].as_str().unwrap().to_owned())
        })
        .collect();
    for (number, manifest) in &seen {
        assert_eq!(taken.get(number), Some(manifest), "of generation {number}");
    }
    assert_eq!(taken.keys().max(), seen.keys().max(), "the pointers lead to what is current");
    let refused = world.served.testbed.ctl_json(&["events", "--kind", "generation-refused"]);
    assert_eq!(refused.as_array().map(Vec::len), Some(0), "{refused}");
}
