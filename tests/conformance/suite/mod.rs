//! The tests, each on a bucket of its own, and what they share.

pub mod copies;
pub mod listing;
pub mod names;
pub mod reads;
pub mod uploads;
pub mod writes;

use std::any::Any;

use bytes::Bytes;
use futures::TryStreamExt;
use mediafs::store::{Body, Condition, ObjectBody, ObjectStore, Receipt, Store};
use mediafs::types::{Key, ObjectHeaders, Span};

/// One implementation, over an empty bucket.
pub struct Subject {
    pub store: Store,
    /// The smallest part that isn't the last.
    pub min_part_bytes: usize,
    /// Presigned URLs can be fetched.
    pub serves_http: bool,
    /// Composed and decomposed spellings of a name are one key.
    pub folds_names: bool,
    /// What has to live as long as the store.
    pub _server: Option<Box<dyn Any + Send>>,
}

/// Runs the whole suite on what `$make` makes, as tests of a module of that name.
macro_rules! conformance {
    ($make:ident) => {
        mod $make {
            conformance! { @tests $make
                reads: a_missing_object, head_and_get_agree, ranges_are_clamped, empty_objects, versions_are_pinned, cut_bodies_resume,
                    presigned_urls_need_no_key;
                writes: conditions_hold, one_winner_of_eight, one_replacement_of_eight, headers_come_back, metadata_comes_back,
                    a_put_replaces_the_headers, deletes_succeed_twice, bulk_deletes_answer_in_order;
                names: odd_keys_keep_their_bytes, odd_keys_copy_and_delete, long_keys_are_refused, the_empty_key_is_refused;
                listing: pages_add_up, directories_are_folded_once, listings_start_after_a_key, prefixes_limit_listings,
                    a_listing_agrees_with_a_head, a_name_beside_its_directory;
                copies: copies_keep_or_replace_headers, a_copy_onto_itself_changes_headers, copies_pin_their_source, copies_of_nothing;
                uploads: parts_become_one_object, parts_are_copied_in_ranges, completes_obey_conditions, aborted_uploads_are_gone,
                    unfinished_uploads_are_listed, small_parts_are_refused, a_part_can_be_sent_again;
            }
        }
    };
    (@tests $make:ident $($module:ident: $($test:ident),+;)+) => {
        $($(
            #[tokio::test]
            async fn $test() {
                crate::suite::$module::$test(super::$make().await).await;
            }
        )+)+
    };
}

impl Subject {
    /// What S3 itself would be.
    pub fn new(store: Store) -> Self {
        Self { store, min_part_bytes: 5 << 20, serves_http: true, folds_names: false, _server: None }
    }

    /// Stores `bytes` under `key`, replacing what was there.
    pub async fn put(&self, key: &str, bytes: impl Into<Bytes>) -> Receipt {
        let (key, headers) = (Key::from(key), ObjectHeaders::default());
        let receipt = self.store.put(&key, Body::new(bytes), &headers, &Condition::Any).await;
        receipt.unwrap_or_else(|error| panic!("{error}"))
    }

    pub async fn read(&self, key: &str, span: Option<Span>) -> Vec<u8> {
        read(&*self.store, key, span).await
    }
}

pub async fn read(store: &dyn ObjectStore, key: &str, span: Option<Span>) -> Vec<u8> {
    let body = store.get(&Key::from(key), span, None).await.unwrap_or_else(|error| panic!("{error}"));
    collect(body).await
}

pub async fn collect(body: ObjectBody) -> Vec<u8> {
    let length = body.span.end - body.span.start;
    let chunks: Vec<Bytes> = body.stream.try_collect().await.unwrap_or_else(|error| panic!("{error}"));
    let bytes = chunks.concat();
    assert_eq!(bytes.len() as u64, length, "the span tells the body's length");
    bytes
}

/// Bytes in which no two stretches are alike.
pub fn noise(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}
