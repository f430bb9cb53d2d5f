//! Documents that definitions were made of.

use jiff::Timestamp;
use protocol::v1::definitions::{Imported, System};

use super::{TestDatabase, on_both};

on_both! {
    a_document_is_kept_to_the_byte_until_another_one_comes
}

async fn a_document_is_kept_to_the_byte_until_another_one_comes(test: &TestDatabase) {
    let of = |document: &str| Imported { system: System::Pulpdist, document: document.to_owned() };
    let mut tx = test.database.write().await.unwrap();
    assert_eq!(tx.imported(System::Pulpdist).await.unwrap(), None);
    for text in ["{}", "{\n  \"RAW_REPOS\": []\t}\n\u{e9}"] {
        tx.put_imported(&of(text), Timestamp::UNIX_EPOCH).await.unwrap();
        assert_eq!(tx.imported(System::Pulpdist).await.unwrap(), Some(of(text)));
    }
    tx.commit().await.unwrap();
}
