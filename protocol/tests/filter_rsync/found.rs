//! Differences that random cases have found, kept as they were printed.

use super::{
    case::{Case, Node, Way, rules, tree},
    oracle, scratch,
};

fn agrees(case: Case) {
    if let Err(why) = oracle::compare(&case, scratch().path()) {
        panic!("{why}\n{}", case.as_test());
    }
}

#[test]
fn a_rule_file_that_leaves_itself_out_does_so_once_when_excluded_names_go() {
    agrees(Case {
        way: Way::Removal { delete_excluded: true },
        limit: rules(&[]),
        rules: rules(&[b":e .f"]),
        upstream: tree(&[]),
        mirror: tree(&[
            (b"d*", Node::Dir),
            (b"d*/d*", Node::Dir),
            (b"d*/d*/.f", Node::File(b"".into())),
        ]),
    });
}

#[test]
fn a_nested_rule_file_that_leaves_itself_out_is_as_perishable_as_its_neighbors() {
    agrees(Case {
        way: Way::Removal { delete_excluded: true },
        limit: rules(&[]),
        rules: rules(&[b"dir-merge,p .m"]),
        upstream: tree(&[]),
        mirror: tree(&[
            (b"a", Node::Dir),
            (b"a/d", Node::Dir),
            (b"a/d/.m", Node::File(b":enwr .m\n".into())),
        ]),
    });
}
