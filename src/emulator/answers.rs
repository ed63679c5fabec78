//! Listings of objects and buckets: from a page of the index to the answer's form.

use std::sync::Arc;

use s3s::dto::{
    Bucket, CommonPrefix, CreateBucketInput, CreateBucketOutput, DeleteBucketInput, DeleteBucketOutput, EncodingType,
    GetBucketLocationInput, GetBucketLocationOutput, HeadBucketInput, HeadBucketOutput, ListBucketsInput, ListBucketsOutput,
    ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, Object as ListedObject, ObjectStorageClass, Owner,
    Timestamp,
};
use s3s::{S3Request, S3Result, s3_error};

use super::listing::{self, After, Entry, PAGE_LIMIT, Query};
use super::state::Object;
use super::storage::{self, Storage};

/// Everything belongs to the one account there is.
const OWNER: &str = "mediafs";

/// How keys are written in an answer: as they are, or url-encoded, so that control characters survive XML.
#[derive(Clone, Copy)]
pub struct Spelling {
    is_encoded: bool,
}

impl Spelling {
    pub fn new(encoding: Option<&EncodingType>) -> S3Result<Self> {
        match encoding.map(EncodingType::as_str) {
            None => Ok(Self { is_encoded: false }),
            Some("url") => Ok(Self { is_encoded: true }),
            Some(_) => Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request")),
        }
    }

    pub fn spell(self, text: &str) -> String {
        if self.is_encoded { listing::url_encode(text) } else { text.to_owned() }
    }
}

/// What both versions of ListObjects ask for.
struct Listing<'a> {
    bucket: &'a str,
    prefix: Option<&'a str>,
    delimiter: Option<&'a str>,
    max_keys: Option<i32>,
    spelling: Spelling,
    with_owner: bool,
}

struct Listed {
    contents: Vec<ListedObject>,
    prefixes: Vec<CommonPrefix>,
    limit: i32,
    next: Option<After>,
}

impl Listing<'_> {
    fn page(&self, storage: &Storage, after: After) -> S3Result<Listed> {
        let limit = usize::try_from(self.max_keys.unwrap_or(PAGE_LIMIT as i32));
        let limit = limit.map_err(|_| s3_error!(InvalidArgument, "max-keys must not be negative"))?.min(PAGE_LIMIT);
        let prefix = storage.key(self.prefix.unwrap_or_default());
        let delimiter = self.delimiter.unwrap_or_default();
        let state = storage.state.lock();
        let keys = &state.bucket(self.bucket)?.objects;
        let page = listing::page(keys, &Query { prefix: &prefix, delimiter, after, limit });
        let mut listed = Listed { contents: Vec::new(), prefixes: Vec::new(), limit: limit as i32, next: page.next };
        for entry in page.entries {
            match entry {
                Entry::Key(_, object) => listed.contents.push(self.object(object)),
                Entry::Prefix(prefix) => listed.prefixes.push(CommonPrefix { prefix: Some(self.spelling.spell(&prefix)) }),
            }
        }
        Ok(listed)
    }

    fn object(&self, object: &Arc<Object>) -> ListedObject {
        let class = object.headers.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned());
        ListedObject {
            e_tag: Some(storage::etag(object)),
            key: Some(self.spelling.spell(&object.spelling)),
            last_modified: Some(Timestamp::from(object.modified)),
            size: Some(object.size as i64),
            storage_class: Some(ObjectStorageClass::from(class)),
            owner: self.with_owner.then(owner),
            ..Default::default()
        }
    }
}

fn owner() -> Owner {
    Owner { display_name: Some(OWNER.to_owned()), id: Some(OWNER.to_owned()) }
}

pub async fn list_v2(storage: &Storage, request: S3Request<ListObjectsV2Input>) -> S3Result<ListObjectsV2Output> {
    let input = request.input;
    let spelling = Spelling::new(input.encoding_type.as_ref())?;
    let after = match (&input.continuation_token, &input.start_after) {
        (Some(token), _) => {
            After::from_token(token).ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))?
        }
        (None, Some(name)) => After::name(&storage.key(name), input.delimiter.as_deref().unwrap_or_default()),
        (None, None) => After::Start,
    };
    let listing = Listing {
        bucket: &input.bucket,
        prefix: input.prefix.as_deref(),
        delimiter: input.delimiter.as_deref(),
        max_keys: input.max_keys,
        spelling,
        with_owner: input.fetch_owner == Some(true),
    };
    let listed = listing.page(storage, after)?;
    Ok(ListObjectsV2Output {
        key_count: Some((listed.contents.len() + listed.prefixes.len()) as i32),
        max_keys: Some(listed.limit),
        is_truncated: Some(listed.next.is_some()),
        next_continuation_token: listed.next.map(|next| next.token()),
        contents: Some(listed.contents),
        common_prefixes: Some(listed.prefixes),
        prefix: Some(spelling.spell(input.prefix.as_deref().unwrap_or_default())),
        delimiter: input.delimiter.map(|text| spelling.spell(&text)),
        start_after: input.start_after.map(|text| spelling.spell(&text)),
        continuation_token: input.continuation_token,
        encoding_type: input.encoding_type,
        name: Some(input.bucket),
        ..Default::default()
    })
}

pub async fn list_v1(storage: &Storage, request: S3Request<ListObjectsInput>) -> S3Result<ListObjectsOutput> {
    let input = request.input;
    let spelling = Spelling::new(input.encoding_type.as_ref())?;
    let delimiter = input.delimiter.as_deref().unwrap_or_default();
    let after = After::name(&storage.key(input.marker.as_deref().unwrap_or_default()), delimiter);
    let listing = Listing {
        bucket: &input.bucket,
        prefix: input.prefix.as_deref(),
        delimiter: input.delimiter.as_deref(),
        max_keys: input.max_keys,
        spelling,
        with_owner: true,
    };
    let listed = listing.page(storage, after)?;
    let next_marker = listed.next.as_ref().map(|next| match next {
        After::Start => String::new(),
        After::Key(name) | After::Prefix(name) => spelling.spell(name),
    });
    Ok(ListObjectsOutput {
        max_keys: Some(listed.limit),
        is_truncated: Some(listed.next.is_some()),
        next_marker,
        contents: Some(listed.contents),
        common_prefixes: Some(listed.prefixes),
        prefix: Some(spelling.spell(input.prefix.as_deref().unwrap_or_default())),
        marker: Some(spelling.spell(input.marker.as_deref().unwrap_or_default())),
        delimiter: input.delimiter.map(|text| spelling.spell(&text)),
        encoding_type: input.encoding_type,
        name: Some(input.bucket),
        ..Default::default()
    })
}

pub async fn list_buckets(storage: &Storage, _: S3Request<ListBucketsInput>) -> S3Result<ListBucketsOutput> {
    let state = storage.state.lock();
    let bucket = |(name, bucket): (&String, &super::state::Bucket)| Bucket {
        name: Some(name.clone()),
        creation_date: Some(Timestamp::from(bucket.created)),
        ..Default::default()
    };
    Ok(ListBucketsOutput { buckets: Some(state.buckets.iter().map(bucket).collect()), owner: Some(owner()), ..Default::default() })
}

pub async fn head_bucket(storage: &Storage, request: S3Request<HeadBucketInput>) -> S3Result<HeadBucketOutput> {
    storage.state.lock().bucket(&request.input.bucket)?;
    Ok(HeadBucketOutput::default())
}

pub async fn create_bucket(storage: &Storage, request: S3Request<CreateBucketInput>) -> S3Result<CreateBucketOutput> {
    let bucket = request.input.bucket;
    storage.state.lock().create_bucket(&bucket, storage.now())?;
    Ok(CreateBucketOutput { location: Some(format!("/{bucket}")) })
}

pub async fn delete_bucket(storage: &Storage, request: S3Request<DeleteBucketInput>) -> S3Result<DeleteBucketOutput> {
    storage.state.lock().delete_bucket(&request.input.bucket)?;
    Ok(DeleteBucketOutput::default())
}

pub async fn bucket_location(storage: &Storage, request: S3Request<GetBucketLocationInput>) -> S3Result<GetBucketLocationOutput> {
    storage.state.lock().bucket(&request.input.bucket)?;
    Ok(GetBucketLocationOutput::default())
}
