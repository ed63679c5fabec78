//! The S3 operations by name: what requests are counted, billed, retried and failed by.

use std::fmt;

/// One request of the S3 protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    HeadObject,
    GetObject,
    PutObject,
    CopyObject,
    DeleteObject,
    DeleteObjects,
    ListObjectsV2,
    CreateMultipartUpload,
    UploadPart,
    UploadPartCopy,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    ListMultipartUploads,
}

/// A class of the price list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bill {
    /// What changes or lists: S3's PUT, COPY, POST and LIST, R2's class A.
    Write,
    Read,
    Free,
}

impl Operation {
    /// All of them, each at its own index (`self as usize`).
    pub const ALL: [Self; 13] = [
        Self::HeadObject,
        Self::GetObject,
        Self::PutObject,
        Self::CopyObject,
        Self::DeleteObject,
        Self::DeleteObjects,
        Self::ListObjectsV2,
        Self::CreateMultipartUpload,
        Self::UploadPart,
        Self::UploadPartCopy,
        Self::CompleteMultipartUpload,
        Self::AbortMultipartUpload,
        Self::ListMultipartUploads,
    ];

    /// The name that S3's documentation and price lists use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HeadObject => "HeadObject",
            Self::GetObject => "GetObject",
            Self::PutObject => "PutObject",
            Self::CopyObject => "CopyObject",
            Self::DeleteObject => "DeleteObject",
            Self::DeleteObjects => "DeleteObjects",
            Self::ListObjectsV2 => "ListObjectsV2",
            Self::CreateMultipartUpload => "CreateMultipartUpload",
            Self::UploadPart => "UploadPart",
            Self::UploadPartCopy => "UploadPartCopy",
            Self::CompleteMultipartUpload => "CompleteMultipartUpload",
            Self::AbortMultipartUpload => "AbortMultipartUpload",
            Self::ListMultipartUploads => "ListMultipartUploads",
        }
    }

    /// What stores bill it as. Deleting and giving an upload up are free on all of them.
    pub const fn bill(self) -> Bill {
        match self {
            Self::HeadObject | Self::GetObject => Bill::Read,
            Self::DeleteObject | Self::DeleteObjects | Self::AbortMultipartUpload => Bill::Free,
            _ => Bill::Write,
        }
    }

    /// True where the bucket may be different afterwards, so that a lost answer leaves the outcome unknown.
    pub const fn changes_bucket(self) -> bool {
        !matches!(self, Self::HeadObject | Self::GetObject | Self::ListObjectsV2 | Self::ListMultipartUploads)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_stands_at_its_own_index() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, index, "{operation}");
        }
    }
}
