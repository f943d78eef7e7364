//! A stage cannot be skipped: programs that try must not compile.

#[test]
fn no_stage_can_be_skipped() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
