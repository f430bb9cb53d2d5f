//! In which order trees are renamed when several paths change at once.
//!
//! Two assignments may swap their paths, or follow each other in a chain. Done one by one, in
//! whatever order they come, such renames meet what is still in the way; worse, a tree that is not
//! moved away in time would be taken for the content of the one that comes there. So all renames of
//! an activation are ordered together: first into places that are free, and where none is, as in a
//! swap, one tree is set aside in its own work directory for the moment that the others need.

use protocol::{path::TreePath, spec::AssignmentName};

/// One tree that is to be published at another path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Which assignment.
    pub name: AssignmentName,
    /// Where its tree lies; `None` while it is set aside in its work directory.
    pub from: Option<TreePath>,
    /// Where it is to be.
    pub to: TreePath,
}

/// One rename.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hop {
    /// To where it is to be.
    Home(AssignmentName),
    /// Out of the way, into its own work directory.
    Aside(AssignmentName),
}

/// A move that has to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Which assignment.
    pub name: AssignmentName,
    /// Whose tree is in its way.
    pub by: AssignmentName,
}

/// Orders renames so that none meets what another still has to move away. `taken` are the places
/// of trees that are not moved now; what would meet one of them waits, and so does what would meet
/// a tree that waits.
pub fn order(
    mut moves: Vec<Move>,
    taken: &[(AssignmentName, TreePath)],
) -> (Vec<Hop>, Vec<Blocked>) {
    let mut taken = taken.to_vec();
    let mut blocked = Vec::new();
    while let Some((at, by)) = find_blocked(&moves, &taken) {
        let waiting = moves.swap_remove(at);
        taken.extend(waiting.from.map(|from| (waiting.name.clone(), from)));
        blocked.push(Blocked { name: waiting.name, by });
    }
    let mut hops = Vec::new();
    while !moves.is_empty() {
        let is_free = |to: &TreePath| {
            !moves.iter().any(|other| other.from.as_ref().is_some_and(|from| meets(from, to)))
        };
        if let Some(at) = moves.iter().position(|next| is_free(&next.to)) {
            hops.push(Hop::Home(moves.remove(at).name));
        } else if let Some(next) = moves.iter_mut().find(|next| next.from.is_some()) {
            next.from = None;
            hops.push(Hop::Aside(next.name.clone()));
        }
    }
    (hops, blocked)
}

/// Whether two places are one, or one contains the other.
pub fn meets(one: &TreePath, other: &TreePath) -> bool {
    one == other || one.is_inside(other) || other.is_inside(one)
}

fn find_blocked(
    moves: &[Move],
    taken: &[(AssignmentName, TreePath)],
) -> Option<(usize, AssignmentName)> {
    moves.iter().enumerate().find_map(|(at, next)| {
        let by = taken.iter().find(|(name, path)| *name != next.name && meets(path, &next.to))?;
        Some((at, by.0.clone()))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    fn name(text: &str) -> AssignmentName {
        format!("{text}@site").parse().unwrap()
    }

    fn moves(all: &[(&str, &str, &str)]) -> Vec<Move> {
        let one = |(tree, from, to): &(&str, &str, &str)| Move {
            name: name(tree),
            from: Some(path(from)),
            to: path(to),
        };
        all.iter().map(one).collect()
    }

    /// Does the renames on a list of places, and fails where one meets another.
    fn carry_out(moves: &[Move], hops: &[Hop]) -> BTreeMap<AssignmentName, TreePath> {
        let place = |m: &Move| m.from.clone().map(|from| (m.name.clone(), from));
        let mut places: BTreeMap<_, _> = moves.iter().filter_map(place).collect();
        for hop in hops {
            match hop {
                Hop::Aside(tree) => assert!(places.remove(tree).is_some(), "{tree} lay nowhere"),
                Hop::Home(tree) => {
                    let to = &moves.iter().find(|m| m.name == *tree).unwrap().to;
                    let met = places.iter().find(|(_, there)| meets(there, to));
                    assert_eq!(met, None, "{tree} to {to}");
                    places.insert(tree.clone(), to.clone());
                }
            }
        }
        places
    }

    fn hops(all: &[(&str, &str, &str)]) -> Vec<Hop> {
        let moves = moves(all);
        let (hops, blocked) = order(moves.clone(), &[]);
        assert_eq!(blocked, []);
        let places = carry_out(&moves, &hops);
        assert!(moves.iter().all(|m| places[&m.name] == m.to), "{places:?}");
        hops
    }

    #[test]
    fn a_chain_is_renamed_from_its_free_end_and_nothing_is_set_aside() {
        let hops = hops(&[("one", "a", "b"), ("two", "b", "c"), ("three", "c", "d")]);
        let home = |tree| Hop::Home(name(tree));
        assert_eq!(hops, [home("three"), home("two"), home("one")]);
    }

    #[test]
    fn of_two_that_swap_one_is_set_aside() {
        let hops = hops(&[("one", "a", "b"), ("two", "b", "a")]);
        assert_eq!(hops, [Hop::Aside(name("one")), Hop::Home(name("two")), Hop::Home(name("one"))]);
    }

    #[test]
    fn a_path_into_itself_and_out_of_itself_goes_by_the_side() {
        for (from, to) in [("x", "x/deep/er"), ("x/deep/er", "x")] {
            let hops = hops(&[("one", from, to)]);
            assert_eq!(hops, [Hop::Aside(name("one")), Hop::Home(name("one"))]);
        }
    }

    #[test]
    fn what_was_set_aside_before_a_crash_goes_home() {
        let mut moves = moves(&[("one", "a", "b"), ("two", "b", "a")]);
        moves[0].from = None;
        let (hops, blocked) = order(moves, &[]);
        assert_eq!(hops, [Hop::Home(name("two")), Hop::Home(name("one"))]);
        assert_eq!(blocked, []);
    }

    #[test]
    fn whatever_would_meet_a_tree_that_stays_waits_and_so_does_what_is_behind_it() {
        let moves = moves(&[("one", "a", "b"), ("two", "b", "c"), ("free", "x", "y")]);
        let (hops, mut blocked) = order(moves, &[(name("busy"), path("c/below"))]);
        assert_eq!(hops, [Hop::Home(name("free"))]);
        blocked.sort_by(|one, other| one.name.cmp(&other.name));
        let waits = |tree, by| Blocked { name: name(tree), by: name(by) };
        assert_eq!(blocked, [waits("one", "two"), waits("two", "busy")]);
    }

    proptest! {
        #[test]
        fn any_permutation_of_any_paths_arrives_and_nothing_ever_meets(
            shuffled in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle(),
            nested in proptest::collection::vec(any::<bool>(), 6),
        ) {
            let places: Vec<String> = (0..6)
                .map(|n| if nested[n] { format!("p{n}/in/side") } else { format!("p{n}") })
                .collect();
            let wanted: Vec<String> = shuffled
                .iter()
                .map(|&n| if nested[(n + 1) % 6] { format!("p{n}/in") } else { format!("p{n}") })
                .collect();
            let trees: Vec<String> = (0..6).map(|n| format!("t{n}")).collect();
            let all: Vec<_> = (0..6)
                .filter(|&n| places[n] != wanted[n])
                .map(|n| (trees[n].as_str(), places[n].as_str(), wanted[n].as_str()))
                .collect();
            // Who stays where it is may be in the way of nobody here: places are distinct.
            hops(&all);
        }
    }
}
