//! How a record is wrapped: version, checksum, JSON.
//!
//! ```text
//! byte 0       version of the record, 1 or 2
//! bytes 1..5   CRC-32 (IEEE) over key and JSON, little endian
//! bytes 5..    JSON
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version this agent writes, and the newest it reads. Version 1 had fewer fields: records say
/// what stands for those that it lacks.
const VERSION: u8 = 2;
/// The oldest it reads.
const OLDEST: u8 = 1;

/// Why a record is no record of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    /// A later agent wrote it.
    Newer(u8),
    /// Its bytes are not what was written.
    Damaged(String),
}

/// The bytes of a record under this key.
pub(super) fn seal(key: &[u8], record: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let json = serde_json::to_vec(record)?;
    let mut bytes = Vec::with_capacity(json.len() + 5);
    bytes.push(VERSION);
    bytes.extend_from_slice(&checksum(key, &json).to_le_bytes());
    bytes.extend_from_slice(&json);
    Ok(bytes)
}

/// The record in these bytes.
pub(super) fn unseal<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, Broken> {
    let damaged = |why: &str| Broken::Damaged(why.to_owned());
    let (version, rest) = bytes.split_first().ok_or_else(|| damaged("it is empty"))?;
    let (crc, json) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("it is cut off"))?;
    // A later version may put its checksum elsewhere, so the version is judged first.
    if *version > VERSION {
        return Err(Broken::Newer(*version));
    }
    if *version < OLDEST {
        return Err(damaged("it has no version"));
    }
    if u32::from_le_bytes(*crc) != checksum(key, json) {
        return Err(damaged("its checksum does not match"));
    }
    serde_json::from_slice(json).map_err(|error| Broken::Damaged(error.to_string()))
}

fn checksum(key: &[u8], json: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(json);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_anywhere_is_noticed() {
        let sealed = seal(b"key", &"some text").unwrap();
        assert_eq!(unseal::<String>(b"key", &sealed).unwrap(), "some text");
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut bytes = sealed.clone();
                bytes[at] ^= 1 << bit;
                assert!(unseal::<String>(b"key", &bytes).is_err(), "byte {at} bit {bit}");
            }
            assert!(unseal::<String>(b"key", &sealed[..at]).is_err(), "cut at {at}");
        }
        assert!(unseal::<String>(b"kez", &sealed).is_err());
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let mut sealed = seal(b"", &1_u8).unwrap();
        sealed[0] = VERSION + 1;
        assert_eq!(unseal::<u8>(b"", &sealed), Err(Broken::Newer(VERSION + 1)));
    }
}
