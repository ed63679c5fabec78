//! The S3 crate's trait, handed on to the modules that do the work, and the one account that may sign.

use std::sync::Arc;

use async_trait::async_trait;
use hyper::StatusCode;
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use super::storage::Storage;
use super::{answers, copy, multipart, objects, r2};

/// The one key pair.
pub struct Account {
    pub access_key: String,
    pub secret_key: String,
    pub r2: bool,
}

#[async_trait]
impl S3Auth for Account {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match access_key == self.access_key {
            true => Ok(SecretKey::from(self.secret_key.as_str())),
            false if self.r2 => Err(r2::error("Unauthorized", StatusCode::UNAUTHORIZED, "Unauthorized")),
            false => Err(s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records.")),
        }
    }
}

pub struct Service {
    pub storage: Arc<Storage>,
}

/// One method each: the operation's input to its function, the output back.
macro_rules! operations {
    ($($name:ident($input:ident) -> $output:ident = $function:path;)*) => {
        #[async_trait]
        impl S3 for Service {
            $(async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                $function(&self.storage, request).await.map(S3Response::new)
            })*
        }
    };
}

operations! {
    get_object(GetObjectInput) -> GetObjectOutput = objects::get;
    head_object(HeadObjectInput) -> HeadObjectOutput = objects::head;
    put_object(PutObjectInput) -> PutObjectOutput = objects::put;
    delete_object(DeleteObjectInput) -> DeleteObjectOutput = objects::delete;
    delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput = objects::delete_many;
    copy_object(CopyObjectInput) -> CopyObjectOutput = copy::copy_object;
    upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput = copy::upload_part_copy;
    create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput = multipart::create;
    upload_part(UploadPartInput) -> UploadPartOutput = multipart::upload_part;
    complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput = multipart::complete;
    abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput = multipart::abort;
    list_parts(ListPartsInput) -> ListPartsOutput = multipart::list_parts;
    list_multipart_uploads(ListMultipartUploadsInput) -> ListMultipartUploadsOutput = multipart::list_uploads;
    list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output = answers::list_v2;
    list_objects(ListObjectsInput) -> ListObjectsOutput = answers::list_v1;
    list_buckets(ListBucketsInput) -> ListBucketsOutput = answers::list_buckets;
    head_bucket(HeadBucketInput) -> HeadBucketOutput = answers::head_bucket;
    create_bucket(CreateBucketInput) -> CreateBucketOutput = answers::create_bucket;
    delete_bucket(DeleteBucketInput) -> DeleteBucketOutput = answers::delete_bucket;
    get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput = answers::bucket_location;
}
