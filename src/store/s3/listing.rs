//! ListObjectsV2: one page.

use aws_sdk_s3::types::EncodingType;

use super::headers::last_modified;
use super::{S3Store, names};
use crate::store::{ListPage, ListRequest, Operation, Result};
use crate::types::{ETag, Key, ListedObject};

impl S3Store {
    /// Keys are asked for in URL form, since XML has no way to write some of them, and decoded where the answer says
    /// that it is in that form. A key that isn't UTF-8 then can't be named by anyone, and is left out.
    pub(super) async fn list_page(&self, request: &ListRequest) -> Result<ListPage> {
        let operation = Operation::ListObjectsV2;
        let _connection = self.connections_free(operation).await?;
        let call = self.client.list_objects_v2().bucket(self.bucket()).encoding_type(EncodingType::Url);
        let call = call.set_prefix(Some(request.prefix.clone()).filter(|prefix| !prefix.is_empty()));
        let call = call.set_delimiter(request.by_directory.then(|| "/".to_owned()));
        let start_after = request.start_after.clone().filter(|_| request.token.is_none());
        let call = call.set_start_after(start_after).set_continuation_token(request.token.clone());
        let call = call.set_max_keys(request.max_keys.map(|count| count.min(1000).cast_signed()));
        let prefix = Key::new(request.prefix.as_str());
        let output = call.send().await.map_err(|error| self.context.error(operation, &prefix, false, error))?;

        let encoded = output.encoding_type() == Some(&EncodingType::Url);
        let decode = |text: &str| if encoded { names::form_decode(text) } else { Some(text.to_owned()) };
        let object = |object: &aws_sdk_s3::types::Object| {
            Some(ListedObject {
                key: Key::new(decode(object.key()?)?),
                size: u64::try_from(object.size().unwrap_or(0)).ok()?,
                etag: ETag::new(object.e_tag()?),
                last_modified: last_modified(object.last_modified()),
                storage_class: object.storage_class().map(|class| class.as_str()).filter(|class| *class != "STANDARD").map(str::to_owned),
            })
        };
        let directory = |common: &aws_sdk_s3::types::CommonPrefix| common.prefix().and_then(decode).map(Key::new);
        Ok(ListPage {
            objects: output.contents().iter().filter_map(object).collect(),
            prefixes: output.common_prefixes().iter().filter_map(directory).collect(),
            next: output.next_continuation_token().filter(|_| output.is_truncated() == Some(true)).map(str::to_owned),
        })
    }
}
