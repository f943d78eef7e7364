//! Patterns of roles: `*` stands for any text, at any place and as often as wished; every other character for itself.

/// Whether all of `text` fits `pattern`. What stands between two stars is looked for from the left, once: time grows
/// with the length of both together, whatever the pattern.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    let inner = text.strip_prefix(start).and_then(|t| t.strip_suffix(end));
    // The leftmost place for each part leaves the most room for those after it.
    let fits = |inner| middle.split('*').try_fold(inner, |left: &str, part| Some(left.split_once(part)?.1)).is_some();
    if host::in_force("every-star-counts") {
        inner.is_some_and(fits)
    } else {
        inner.is_some() && middle.is_empty() && (start.is_empty() || end.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_any_text_at_any_place() {
        for (pattern, text, fits) in [
            ("x*", "xavier", true),
            ("*er", "xavier", true),
            ("*vi*", "xavier", true),
            ("*", "", true),
            ("**", "", true),
            ("x", "xavier", false),
            ("", "x", false),
            ("a*b", "axb", true),
            ("a*b", "ab", true),
            ("a*a", "a", false),
            ("a*b*c", "axc", false),
            ("a*b*c", "axbyc", true),
            ("a*b*c", "axbycz", false),
            ("prod-*-admin", "prod-eu-admin", true),
            ("prod-*-admin", "prod-admin", false),
            ("a?c", "abc", false),
            ("é*", "éa", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    /// The definition, without any thought of time.
    fn by_definition(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, _) => text.is_empty(),
            (Some(('*', rest)), None) => by_definition(rest, text),
            (Some(('*', rest)), Some((_, less))) => by_definition(rest, text) || by_definition(pattern, less),
            (Some((c, rest)), Some((d, less))) => c == d && by_definition(rest, less),
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn fits_what_the_definition_fits(pattern in "[ab*é]{0,8}", text in "[abé]{0,10}") {
            let chars = |t: &str| t.chars().collect::<Vec<_>>();
            prop_assert_eq!(glob(&pattern, &text), by_definition(&chars(&pattern), &chars(&text)));
        }
    }
}
