//! How much of an answer is read into memory, and whether that is all of it. The SDK collects every body but that of a
//! successful GET whole before it looks at it, however long a store goes on sending, and takes half of one for the whole.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::primitives::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::ending::Ending;

type BoxError = Box<dyn Error + Send + Sync>;

/// A full page of a listing: a thousand keys of 1,024 bytes, each percent-encoded, with all that is said of them. Errors and
/// the answers to deletes are shorter.
const LONGEST_BYTES: u64 = 8 << 20;

/// Bounds the answers to all requests of a client.
#[derive(Debug)]
pub(super) enum Bounds {
    EveryAnswer,
    /// Successful ones are streams, and whoever reads them knows how long they are to be.
    Errors,
}

impl Intercept for Bounds {
    fn name(&self) -> &'static str {
        "bounds"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        let is_stream = matches!(self, Self::Errors) && response.status().is_success();
        if !is_stream {
            let body = std::mem::replace(response.body_mut(), SdkBody::taken());
            // The status of a failure says enough.
            let ending = response.status().is_success().then(Ending::default);
            *response.body_mut() = SdkBody::from_body_1_x(Bounded { body, left: LONGEST_BYTES, ending });
        }
        Ok(())
    }
}

/// Fails where it would be longer, and where it breaks off.
struct Bounded {
    body: SdkBody,
    left: u64,
    ending: Option<Ending>,
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Body::poll_frame(Pin::new(&mut self.body), context));
        let frame = match frame {
            Some(frame) => frame?,
            None if self.ending.as_ref().is_some_and(|ending| !ending.is_there()) => {
                return Poll::Ready(Some(Err("the answer broke off".into())));
            }
            None => return Poll::Ready(None),
        };
        let Some(data) = frame.data_ref() else { return Poll::Ready(Some(Ok(frame))) };
        match self.left.checked_sub(data.len() as u64) {
            Some(left) => {
                self.left = left;
                if let Some(ending) = &mut self.ending {
                    ending.see(data);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            None => Poll::Ready(Some(Err(format!("an answer of more than {} MiB", LONGEST_BYTES >> 20).into()))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.body)
    }
}
