//! Request bodies: read within limits, decompressed within limits, accounted for in one memory budget.
//! Guarantees: a body never takes more memory than its limits, whatever its headers or its compression say.

use std::io::Read;
use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use shared::event::{RejectReason, Rejection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::settings::Settings;

/// The granularity of the memory budget in bytes.
const GRAIN: usize = 4 * 1024;
/// Room is made for at most so many times what a client has sent of a body.
const FORESIGHT: usize = 8;
/// The largest zstd window taken: what a decoder must hold in memory, as a power of two.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Memory for bodies, shared by all requests.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Semaphore>);

/// A part of the budget, given back on drop.
#[derive(Debug, Default)]
pub(crate) struct Share(Option<OwnedSemaphorePermit>);

impl Budget {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self(Arc::new(Semaphore::new((settings.max_buffered.as_usize() / GRAIN).clamp(1, Semaphore::MAX_PERMITS))))
    }

    /// Makes `share` large enough for `bytes`.
    fn grow(&self, share: &mut Share, bytes: usize) -> Result<(), BodyFault> {
        let have = share.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(GRAIN).saturating_sub(have);
        if more == 0 {
            return Ok(());
        }
        let more = u32::try_from(more).map_err(|_| BodyFault::NoMemory)?;
        let permit = Arc::clone(&self.0).try_acquire_many_owned(more).map_err(|_| BodyFault::NoMemory)?;
        match &mut share.0 {
            Some(share) => share.merge(permit),
            empty => *empty = Some(permit),
        }
        Ok(())
    }
}

/// A body as sent, with its place in the budget.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) bytes: Bytes,
    pub(crate) share: Share,
}

/// Why a body is not to be had.
#[derive(Debug)]
pub(crate) enum BodyFault {
    /// Too much memory is taken by other requests.
    NoMemory,
    /// It is refused; the bytes are what came before that was clear.
    Refused(Rejection, Bytes),
    /// It is compressed in a way we do not know.
    UnknownEncoding,
}

/// Reads a body of at most `max_body_size`.
pub(crate) async fn read(
    mut body: Body,
    headers: &HeaderMap,
    settings: &Settings,
    budget: &Budget,
) -> Result<Raw, BodyFault> {
    let limit = settings.max_body_size.as_usize();
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large(settings.max_body_size, Bytes::new()));
    }
    let (mut bytes, mut share) = (BytesMut::new(), Share::default());
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                let rejection = Rejection::new(RejectReason::Malformed, format!("the body broke off: {error}"));
                return Err(BodyFault::Refused(rejection, bytes.freeze()));
            }
        };
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > limit {
                return Err(too_large(settings.max_body_size, bytes.freeze()));
            }
            let length = bytes.len() + data.len();
            // What was announced is believed to so much more than has come.
            let whole = announced.filter(|whole| (length..=length.saturating_mul(FORESIGHT)).contains(whole));
            let room = whole.unwrap_or(length);
            budget.grow(&mut share, room)?;
            bytes.reserve(room - bytes.len());
            bytes.extend_from_slice(&data);
        }
    }
    Ok(Raw { bytes: bytes.freeze(), share })
}

/// The body without its compression, at most `max_decoded_size`.
pub(crate) fn decode(
    raw: &mut Raw,
    headers: &HeaderMap,
    settings: &Settings,
    budget: &Budget,
) -> Result<Bytes, BodyFault> {
    let encoding = headers.get(CONTENT_ENCODING).map_or("identity", |v| v.to_str().unwrap_or("?"));
    let sent: &[u8] = &raw.bytes;
    let decoder: Box<dyn Read + '_> = match encoding.trim().to_ascii_lowercase().as_str() {
        "identity" | "" => return Ok(raw.bytes.clone()),
        "gzip" | "x-gzip" => Box::new(flate2::read::MultiGzDecoder::new(sent)),
        "zstd" => {
            let opened = zstd::Decoder::with_buffer(sent)
                .and_then(|mut decoder| decoder.window_log_max(ZSTD_WINDOW_LOG).map(|()| decoder));
            Box::new(opened.map_err(|e| corrupt(&raw.bytes, &e))?)
        }
        _ => return Err(BodyFault::UnknownEncoding),
    };
    inflate(decoder, &raw.bytes, &mut raw.share, settings, budget)
}

fn inflate(
    mut decoder: Box<dyn Read + '_>,
    sent: &Bytes,
    share: &mut Share,
    settings: &Settings,
    budget: &Budget,
) -> Result<Bytes, BodyFault> {
    let mut decoded = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        let got = decoder.read(&mut chunk).map_err(|e| corrupt(sent, &e))?;
        if got == 0 {
            return Ok(decoded.into());
        }
        if decoded.len() + got > settings.max_decoded_size.as_usize() {
            return Err(too_large(settings.max_decoded_size, sent.clone()));
        }
        budget.grow(share, sent.len() + decoded.len() + got)?;
        decoded.extend_from_slice(chunk.get(..got).unwrap_or_default());
    }
}

fn corrupt(sent: &Bytes, error: &std::io::Error) -> BodyFault {
    let rejection = Rejection::new(RejectReason::Malformed, format!("the body does not decompress: {error}"));
    BodyFault::Refused(rejection, sent.clone())
}

fn too_large(limit: shared::config::ByteSize, before: Bytes) -> BodyFault {
    let rejection = Rejection::new(RejectReason::TooLarge, format!("the body is larger than {limit}"));
    BodyFault::Refused(rejection, before)
}
