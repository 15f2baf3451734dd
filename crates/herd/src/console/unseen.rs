//! Characters that are not seen: texts that differ in them alone look the same.

/// Code points with the property `Default_Ignorable_Code_Point` of Unicode 16 (`DerivedCoreProperties.txt`), and U+2800,
/// the Braille pattern without a dot. First and last of each range.
const UNSEEN: [(char, char); 18] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fff8}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Whether the character is not seen. Spaces are.
pub(super) fn is_unseen(c: char) -> bool {
    // Most text lies before all of them.
    c >= UNSEEN[0].0 && UNSEEN.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        assert!(UNSEEN.is_sorted_by(|one, next| one.1 < next.0));
        // The file names the sum of those with the property.
        assert_eq!(('\0'..=char::MAX).filter(|c| is_unseen(*c)).count(), 4174 + 1);
        assert!([' ', '\u{a0}', '\u{3000}'].into_iter().all(|space| !is_unseen(space)));
    }
}
