use tiff::tags::Tag;

/// Puts a directory of our own before all others of a TIFF, which stay where they are. Values are of type LONG.
///
/// With it the `tiff` crate reads files whose first directory it refuses, and data that is laid out otherwise
/// than it knows.
///
/// Gives where the first directory was; `None`, and nothing is changed, for a file that is no TIFF or has 64-bit
/// offsets.
pub(super) fn put_first(bytes: &mut Vec<u8>, entries: &[(Tag, &[u32])]) -> Option<u32> {
    let number: fn([u8; 4]) -> u32;
    let long: fn(u32) -> [u8; 4];
    let short: fn(u16) -> [u8; 2];
    match bytes.get(..4)? {
        b"II*\0" => {
            (number, long, short) = (u32::from_le_bytes, u32::to_le_bytes, u16::to_le_bytes)
        }
        b"MM\0*" => {
            (number, long, short) = (u32::from_be_bytes, u32::to_be_bytes, u16::to_be_bytes)
        }
        _ => return None,
    }
    let first = number(bytes.get(4..8)?.try_into().ok()?);
    let at = u32::try_from(bytes.len()).ok()?;
    let count = u16::try_from(entries.len()).ok()?;
    let mut entries = entries.to_vec();
    entries.sort_by_key(|(tag, _)| tag.to_u16());

    let mut directory = short(count).to_vec();
    // Lists follow the directory: its count, 12 bytes for each entry, and where the next is.
    let mut lists = Vec::new();
    let lists_at = at.checked_add(2 + 12 * u32::from(count) + 4)?;
    for (tag, values) in entries {
        directory.extend(short(tag.to_u16()));
        directory.extend(short(4));
        directory.extend(long(u32::try_from(values.len()).ok()?));
        match values {
            [value] => directory.extend(long(*value)),
            values => {
                directory.extend(long(
                    lists_at.checked_add(u32::try_from(lists.len()).ok()?)?,
                ));
                lists.extend(values.iter().flat_map(|&value| long(value)));
            }
        }
    }
    directory.extend(long(0));
    bytes.extend(directory);
    bytes.extend(lists);
    bytes[4..8].copy_from_slice(&long(at));
    Some(first)
}
