"""The tests of ocidist. CONTRIBUTING.md says how to run one."""
