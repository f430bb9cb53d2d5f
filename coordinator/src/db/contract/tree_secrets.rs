//! Secrets of private trees.

use certs::private::new_secret;
use jiff::Timestamp;

use super::{TestDatabase, on_both};

on_both! {
    a_tree_keeps_the_first_secret_that_it_was_given_until_it_is_replaced
}

async fn a_tree_keeps_the_first_secret_that_it_was_given_until_it_is_replaced(test: &TestDatabase) {
    let (one, two) = ("one".parse().unwrap(), "two".parse().unwrap());
    let (first, second) = (new_secret().unwrap(), new_secret().unwrap());
    let mut tx = test.database.write().await.unwrap();
    assert_eq!(tx.tree_secret(&one).await.unwrap(), None);
    tx.add_tree_secret(&one, &first, Timestamp::now()).await.unwrap();
    tx.add_tree_secret(&one, &second, Timestamp::now()).await.unwrap();
    tx.add_tree_secret(&two, &second, Timestamp::now()).await.unwrap();
    assert_eq!(tx.tree_secret(&one).await.unwrap(), Some(first));
    assert_eq!(tx.tree_secret(&two).await.unwrap(), Some(second.clone()));
    let (third, three) = (new_secret().unwrap(), "three".parse().unwrap());
    for tree in [&one, &three] {
        tx.replace_tree_secret(tree, &third, Timestamp::now()).await.unwrap();
        assert_eq!(tx.tree_secret(tree).await.unwrap(), Some(third.clone()));
    }
    assert_eq!(tx.tree_secret(&two).await.unwrap(), Some(second), "the other one stays");
    tx.commit().await.unwrap();
}
