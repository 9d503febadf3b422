//! Frames of the append stream: a length, an id, and a message.
//!
//! `length: u32 BE | id: u64 BE | message`, where the length counts id and message. Ids count up from 0 in each stream
//! and answers carry the id of their question, in the same order: a gap or a swap ends the stream.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The largest frame that is accepted, in bytes: an append is cut at 1 MiB of entries, and one entry is at most a key
/// and a value (1 KiB + 1 MiB) with its header.
pub(super) const MAX_FRAME_BYTES: usize = 8 << 20;

const LENGTH_BYTES: usize = 4;
const ID_BYTES: usize = 8;

/// One frame as bytes.
pub(super) fn encode(id: u64, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(LENGTH_BYTES + ID_BYTES + message.len());
    // No overflow: the sender's messages are below `MAX_FRAME_BYTES`, and a longer one is refused by the receiver.
    frame.put_u32(u32::try_from(ID_BYTES + message.len()).unwrap_or(u32::MAX));
    frame.put_u64(id);
    frame.put_slice(message);
    frame.freeze()
}

/// Takes frames out of a stream of bytes.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Adds bytes as they arrive.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// A frame that is too long or too short to hold an id; the stream is lost then.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Bytes)>> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if !(ID_BYTES..=MAX_FRAME_BYTES).contains(&length) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            self.buffer.reserve(LENGTH_BYTES + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        let mut frame = self.buffer.split_to(length);
        let id = frame.get_u64();
        Ok(Some((id, frame.freeze())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_survive_any_cutting(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..8), cut in 1_usize..9) {
            let wire: Vec<u8> = messages.iter().zip(0..).flat_map(|(message, id)| encode(id, message)).collect();
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for piece in wire.chunks(cut) {
                decoder.push(piece);
                while let Some((id, message)) = decoder.next().unwrap() {
                    prop_assert_eq!(id, seen.len() as u64);
                    seen.push(message.to_vec());
                }
            }
            prop_assert_eq!(seen, messages);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next() {}
        }
    }

    #[test]
    fn a_frame_beyond_the_bound_is_refused_before_it_is_read() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_be_bytes());
        assert!(decoder.next().is_err());
    }
}
