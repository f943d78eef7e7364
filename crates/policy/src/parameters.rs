//! The conditions of a rule on the parameters of a request and on the wrapping of its reply.

use std::borrow::Cow;
use std::collections::BTreeMap;

use api::Ttl;
use serde_json::value::RawValue;

use crate::hcl::{self, Value};
use crate::rule::Terms;
use crate::{Action, DeniedWhy, Query};

/// Whether the asked-for wrapping keeps the rule's bounds. A bound of either kind demands that there is one.
pub(crate) fn wrapping_fits(terms: &Terms, wrap_ttl: Option<Ttl>) -> bool {
    let (min, max) = (terms.min_wrapping, terms.max_wrapping);
    let asked = wrap_ttl.filter(|t| !t.is_zero());
    let above = min.is_zero() || asked.is_some_and(|t| t >= min);
    let below = max.is_zero() || asked.is_some_and(|t| t <= max);
    above && below
}

/// Checks the parameters of a request. Names are compared in lower case, as rules keep them; a required one must be
/// there in lower case, for so the engine will look for it.
pub(crate) fn check(terms: &Terms, query: &Query<'_>) -> Result<(), DeniedWhy> {
    let silent = terms.required.is_empty() && terms.denied.is_empty() && terms.allowed.is_empty();
    if silent || !query.action.has_parameters() {
        return Ok(());
    }
    let parameters = Parameters::of(query)?;
    if let Some(absent) = terms.required.iter().find(|name| !parameters.has(name)) {
        return Err(DeniedWhy::ParameterAbsent(absent.clone()));
    }
    if parameters.0.is_empty() {
        return Ok(());
    }
    if terms.denied.contains_key(EVERY) {
        return Err(DeniedWhy::ParameterDenied);
    }
    for (name, given) in &parameters.0 {
        let key = name.to_lowercase();
        if let Some(list) = terms.denied.get(&key)
            && given.is_listed(list)?
        {
            return Err(DeniedWhy::ParameterDenied);
        }
        if terms.allowed.is_empty() {
            continue;
        }
        let fits = match terms.allowed.get(&key) {
            Some(list) => given.is_listed(list)?,
            None => terms.allowed.contains_key(EVERY),
        };
        if !fits {
            return Err(DeniedWhy::ParameterNotAllowed);
        }
    }
    Ok(())
}

/// The name that stands for every parameter. Its values mean nothing.
const EVERY: &str = "*";

/// The parameters of a request: the fields of its body, for a read also its query. Only the top level has names.
struct Parameters<'a>(Vec<(Cow<'a, str>, Given<'a>)>);

/// A value as it came.
enum Given<'a> {
    /// Of a body.
    Json(&'a RawValue),
    /// Of a query: `?a=x&a=y`.
    Query(Vec<&'a str>),
}

impl<'a> Parameters<'a> {
    fn of(query: &Query<'a>) -> Result<Self, DeniedWhy> {
        let fields = query.body.fields().map_err(|_| DeniedWhy::ParametersUnreadable)?;
        let mut all: Vec<_> = fields.into_iter().map(|(k, v)| (Cow::Owned(k), Given::Json(v))).collect();
        if query.action == Action::Read {
            let mut of_query: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for (name, value) in query.query {
                of_query.entry(name).or_default().push(value);
            }
            all.extend(of_query.into_iter().map(|(k, v)| (Cow::Borrowed(k), Given::Query(v))));
        }
        Ok(Self(all))
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }
}

impl Given<'_> {
    /// Whether the value is on the list; an empty list holds every value.
    fn is_listed(&self, list: &[Value]) -> Result<bool, DeniedWhy> {
        if list.is_empty() {
            return Ok(true);
        }
        let text_is_listed = |text: &str| list.iter().any(|item| matches!(item, Value::Text(t) if is_like(t, text)));
        match self {
            Self::Query(values) => match values.as_slice() {
                [value] => Ok(text_is_listed(value)),
                values => {
                    let value = Value::List(values.iter().map(|v| Value::text(v)).collect());
                    Ok(list.contains(&value))
                }
            },
            Self::Json(raw) => {
                let value = hcl::json_value(raw.get()).ok_or(DeniedWhy::ParametersUnreadable)?;
                Ok(match &value {
                    Value::Text(text) => text_is_listed(text),
                    value => list.contains(value),
                })
            }
        }
    }
}

/// Whether `text` is like `item`, where a star at either end of `item` stands for anything.
fn is_like(item: &str, text: &str) -> bool {
    if item.len() < 2 {
        return item == text;
    }
    match (item.strip_prefix('*'), item.strip_suffix('*')) {
        (Some(_), Some(_)) => text.contains(&item[1..item.len() - 1]),
        (Some(end), None) => text.ends_with(end),
        (None, Some(start)) => text.starts_with(start),
        (None, None) => item == text,
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::{Compiled, Identity, Policy};

    fn body(json: &str) -> api::Body {
        api::Body::new(Zeroizing::new(json.as_bytes().to_vec()))
    }

    /// What a rule with these lines answers to a write with this body.
    fn write(lines: &str, json: &str) -> Result<(), DeniedWhy> {
        ask(lines, Action::Update, json, &[], None)
    }

    fn ask(
        lines: &str,
        action: Action,
        json: &str,
        query: &[(&str, &str)],
        wrap_ttl: Option<u64>,
    ) -> Result<(), DeniedWhy> {
        let text = format!("path \"p\" {{\ncapabilities = [\"update\", \"read\", \"delete\", \"patch\"]\n{lines}\n}}");
        let policy = Policy::parse("t", &text).unwrap();
        let compiled = Compiled::merge([&policy], &Identity::default()).unwrap();
        let query: Vec<_> = query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let wrap_ttl = wrap_ttl.map(Ttl::seconds);
        let body = body(json);
        let query = Query { path: "p", action, body: &body, query: &query, sudo_needed: false, wrap_ttl };
        compiled.decide(&query).map(|_| ()).map_err(|d| d.why)
    }

    #[test]
    fn required_parameters_must_be_there_in_lower_case() {
        let rule = r#"required_parameters = ["TTL", "name"]"#;
        assert_eq!(write(rule, r#"{"ttl":1,"name":"x","more":2}"#), Ok(()));
        assert_eq!(write(rule, r#"{"ttl":1}"#), Err(DeniedWhy::ParameterAbsent("name".into())));
        assert_eq!(write(rule, r#"{"TTL":1,"name":"x"}"#), Err(DeniedWhy::ParameterAbsent("ttl".into())));
        assert_eq!(write(rule, ""), Err(DeniedWhy::ParameterAbsent("name".into())));
    }

    #[test]
    fn denied_parameters_by_name_and_by_value() {
        let any = r#"denied_parameters = { "Type" = [] }"#;
        assert_eq!(write(any, r#"{"ttl":1}"#), Ok(()));
        assert_eq!(write(any, r#"{"tYPE":"x"}"#), Err(DeniedWhy::ParameterDenied));
        let some = r#"denied_parameters = { "type" = ["ro*t", "*admin*", "*x", "y*", 5, true, null] }"#;
        for denied in ["\"ro*t\"", "\"an-admin-b\"", "\"a-x\"", "\"y-b\"", "5", "true", "null"] {
            assert_eq!(write(some, &format!("{{\"type\":{denied}}}")), Err(DeniedWhy::ParameterDenied), "{denied}");
        }
        for fine in ["\"root\"", "\"x-a\"", "\"b-y\"", "6", "false", "\"5\"", "\"null\"", "[5]"] {
            assert_eq!(write(some, &format!("{{\"type\":{fine}}}")), Ok(()), "{fine}");
        }
        let every = r#"denied_parameters = { "*" = [] }"#;
        assert_eq!(write(every, r#"{"a":1}"#), Err(DeniedWhy::ParameterDenied));
        assert_eq!(write(every, ""), Ok(()));
        assert_eq!(write(every, "{}"), Ok(()));
    }

    #[test]
    fn allowed_parameters_admit_no_others_unless_a_star_stands_there() {
        let some = r#"allowed_parameters = { "ttl" = ["1h", "2h"], "meta" = [] }"#;
        assert_eq!(write(some, r#"{"TTL":"1h","meta":{"a":"b"}}"#), Ok(()));
        assert_eq!(write(some, r#"{"ttl":"3h"}"#), Err(DeniedWhy::ParameterNotAllowed));
        assert_eq!(write(some, r#"{"ttl":"1h","x":1}"#), Err(DeniedWhy::ParameterNotAllowed));
        let others_too = r#"allowed_parameters = { "ttl" = ["1h"], "*" = [] }"#;
        assert_eq!(write(others_too, r#"{"ttl":"1h","x":1}"#), Ok(()));
        assert_eq!(write(others_too, r#"{"ttl":"3h","x":1}"#), Err(DeniedWhy::ParameterNotAllowed));
        assert_eq!(write(r#"allowed_parameters = { "*" = [] }"#, r#"{"x":1}"#), Ok(()));
        assert_eq!(write(r#"allowed_parameters { "x" = [[1, {"a"="b"}], 2.50] }"#, r#"{"x":[1,{"a":"b"}]}"#), Ok(()));
        assert_eq!(write(r#"allowed_parameters { "x" = [[1], 2.50] }"#, r#"{"x":2.5}"#), Ok(()));
    }

    #[test]
    fn a_denied_value_wins_over_an_allowed_one() {
        let both = r#"allowed_parameters = { "a" = [] }
            denied_parameters = { "a" = ["x"] }"#;
        assert_eq!(write(both, r#"{"a":"x"}"#), Err(DeniedWhy::ParameterDenied));
        assert_eq!(write(both, r#"{"a":"y"}"#), Ok(()));
    }

    #[test]
    fn large_numbers_are_compared_to_the_last_digit() {
        let rule = "denied_parameters = { n = [12345678901234567890123] }";
        assert_eq!(write(rule, r#"{"n":12345678901234567890123}"#), Err(DeniedWhy::ParameterDenied));
        assert_eq!(write(rule, r#"{"n":12345678901234567890124}"#), Ok(()));
    }

    #[test]
    fn a_body_that_cannot_be_read_is_denied_where_parameters_count() {
        let rule = "denied_parameters = { n = [1] }";
        assert_eq!(write(rule, "[1]"), Err(DeniedWhy::ParametersUnreadable));
        let deep = format!("{{\"n\":{}1{}}}", "[".repeat(100), "]".repeat(100));
        assert_eq!(write(rule, &deep), Err(DeniedWhy::ParametersUnreadable));
        assert_eq!(write("", "[1]"), Ok(()));
    }

    #[test]
    fn a_read_is_judged_by_its_query_and_a_removal_not_at_all() {
        let rule = r#"required_parameters = ["version"]
            allowed_parameters = { "version" = ["1", ["2", "3"]] }"#;
        let read = |q: &[(&str, &str)]| ask(rule, Action::Read, "", q, None);
        assert_eq!(read(&[("version", "1")]), Ok(()));
        assert_eq!(read(&[("version", "2")]), Err(DeniedWhy::ParameterNotAllowed));
        assert_eq!(read(&[("version", "2"), ("version", "3")]), Ok(()));
        assert_eq!(read(&[]), Err(DeniedWhy::ParameterAbsent("version".into())));
        assert_eq!(ask(rule, Action::Delete, "", &[], None), Ok(()));
        assert_eq!(ask(rule, Action::Patch, "{}", &[], None), Err(DeniedWhy::ParameterAbsent("version".into())));
    }

    #[test]
    fn wrapping_is_demanded_and_bounded() {
        for (rule, ttl, fits) in [
            ("max_wrapping_ttl = \"5m\"", None, false),
            ("max_wrapping_ttl = \"5m\"", Some(0), false),
            ("max_wrapping_ttl = \"5m\"", Some(300), true),
            ("max_wrapping_ttl = 300", Some(301), false),
            ("min_wrapping_ttl = \"1m\"", None, false),
            ("min_wrapping_ttl = \"1m\"", Some(59), false),
            ("min_wrapping_ttl = \"1m\"\nmax_wrapping_ttl = \"1m\"", Some(60), true),
            ("", Some(60), true),
        ] {
            let expected = if fits { Ok(()) } else { Err(DeniedWhy::Wrapping) };
            assert_eq!(ask(rule, Action::Read, "", &[], ttl), expected, "{rule} {ttl:?}");
        }
    }
}
