//! An object's headers, to and from the SDK's builders and outputs. Macros, because every operation has its own types.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::primitives::DateTime;

/// Sets all headers of `$headers: &ObjectHeaders`. The type is always sent: R2 guesses one from the bytes otherwise.
macro_rules! with_headers {
    ($request:expr, $headers:expr) => {{
        let headers: &crate::types::ObjectHeaders = $headers;
        $request
            .content_type(headers.content_type.as_deref().unwrap_or(crate::store::s3::headers::DEFAULT_TYPE))
            .set_cache_control(headers.cache_control.clone())
            .set_content_disposition(headers.content_disposition.clone())
            .set_content_encoding(headers.content_encoding.clone())
            .set_content_language(headers.content_language.clone())
            .set_storage_class(headers.storage_class.as_deref().map(Into::into))
            .set_metadata(Some(crate::store::metadata::encode_metadata(&headers.metadata)))
    }};
}

/// The headers of a HEAD's or a GET's output.
macro_rules! headers_of {
    ($output:expr) => {
        crate::types::ObjectHeaders {
            content_type: $output.content_type().map(str::to_owned),
            cache_control: $output.cache_control().map(str::to_owned),
            content_disposition: $output.content_disposition().map(str::to_owned),
            content_encoding: $output.content_encoding().map(str::to_owned),
            content_language: $output.content_language().map(str::to_owned),
            storage_class: $output.storage_class().map(|class| class.as_str()).filter(|class| *class != "STANDARD").map(str::to_owned),
            metadata: crate::store::metadata::decode_metadata($output.metadata()),
        }
    };
}

/// True where the ETag is no MD5 although it may look like one: encrypted under a key of KMS or of the customer.
macro_rules! has_opaque_etag {
    ($output:expr) => {
        $output.ssekms_key_id().is_some() || $output.sse_customer_algorithm().is_some()
    };
}

pub(super) use {has_opaque_etag, headers_of, with_headers};

/// S3's own, for bytes of which nothing is known.
pub(super) const DEFAULT_TYPE: &str = "application/octet-stream";

/// To the second, since a HEAD has no more, and a HEAD and a listing must agree on one version.
pub(super) fn last_modified(time: Option<&DateTime>) -> SystemTime {
    let seconds = time.map_or(0, DateTime::secs);
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
