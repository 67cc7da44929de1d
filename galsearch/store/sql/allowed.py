"""The functions and tables that a visitor's SQL may name; what is not listed is refused, in later DuckDBs too.

Left out is what tells of the machine (settings, paths, versions, files, other connections), what runs text as SQL, what
waits, and what walks nested JSON, whose depth a stranger chooses.
"""

from __future__ import annotations

from collections.abc import Iterable

from galsearch.errors import QueryError

_MATH = """
% & * ** + - / // << >> @ ^ | ~ ! !__postfix xor abs acos acosh add asin asinh atan atan2 atanh bit_count cbrt ceil
ceiling cos cosh cot degrees divide even exp factorial fdiv floor fmod gamma gcd greatest greatest_common_divisor
isfinite isinf isnan lcm least least_common_multiple lgamma ln log log10 log2 mod multiply nextafter pi pow power
radians random round round_even roundbankers sign signbit sin sinh sqrt subtract tan tanh trunc width_bucket
equi_width_bins hash
"""
_LOGIC = """
!= < <= = > >= IS && @> <@ if nullif coalesce constant_or_null error __between count_if typeof pg_typeof alias
"""
_TEXT = """
|| ~~ !~~ ~~* !~~* ~~~ ^@ ascii base64 bar bin bit_length char_length character_length chr concat concat_ws contains
damerau_levenshtein decode editdist3 encode ends_with format formatReadableDecimalSize formatReadableSize format_bytes
from_base64 from_binary from_hex hamming hex ilike_escape instr jaccard jaro_similarity jaro_winkler_similarity lcase
left left_grapheme len length length_grapheme levenshtein like_escape lower lpad ltrim md5 mismatches nfc_normalize
not_ilike_escape not_like_escape octet_length ord overlay position prefix printf regexp_escape regexp_extract
regexp_extract_all regexp_full_match regexp_matches regexp_replace regexp_split_to_array repeat replace reverse right
right_grapheme rpad rtrim sha1 sha256 split split_part starts_with str_split str_split_regex string_split
string_split_regex string_to_array strip_accents strlen strpos substr substring substring_grapheme suffix to_base
to_base64 to_binary to_hex translate trim ucase unbin unhex unicode upper url_decode url_encode
"""
_TIME = """
ago century current_date current_localtime current_localtimestamp date_add date_diff date_part date_sub date_trunc
datediff datepart datesub datetrunc day dayname dayofmonth dayofweek dayofyear days_in_month decade epoch epoch_ms
epoch_ns epoch_us era get_current_timestamp hour isodow isoyear julian last_day make_date make_time make_timestamp
make_timestamp_ms make_timestamp_ns make_timestamptz microsecond millennium millisecond minute month monthname
nanosecond now quarter second strftime strptime time_bucket timezone to_centuries to_days to_decades to_hours
to_microseconds to_millennia to_milliseconds to_minutes to_months to_quarters to_seconds to_timestamp to_weeks to_years
today transaction_timestamp try_strptime week weekday weekofyear year yearweek
"""
_NESTED = """
-> ->> <-> <=> aggregate apply array_aggr array_aggregate array_append array_apply array_cat array_concat array_contains
array_cosine_distance array_cosine_similarity array_cross_product array_distance array_distinct array_dot_product
array_extract array_filter array_has array_has_all array_has_any array_indexof array_inner_product array_intersect
array_length array_negative_dot_product array_negative_inner_product array_pop_back array_pop_front array_position
array_prepend array_push_back array_push_front array_reduce array_resize array_reverse array_reverse_sort array_select
array_slice array_sort array_to_string array_transform array_unique array_value array_where array_zip cardinality
element_at filter flatten json_array_length json_extract json_extract_string json_keys json_type json_valid
list_aggr list_aggregate list_any_value list_append list_apply list_avg list_cat list_concat list_contains
list_cosine_distance list_cosine_similarity list_count list_distance list_distinct list_dot_product list_element
list_extract list_filter list_first list_grade_up list_has list_has_all list_has_any list_indexof list_inner_product
list_intersect list_last list_max list_median list_min list_mode list_negative_dot_product list_negative_inner_product
list_pack list_position list_prepend list_product list_reduce list_resize list_reverse list_reverse_sort list_select
list_slice list_sort list_stddev_pop list_stddev_samp list_string_agg list_sum list_transform list_unique list_value
list_var_pop list_var_samp list_where list_zip map map_concat map_contains map_entries map_extract map_extract_value
map_from_entries map_keys map_values reduce row struct_concat struct_contains struct_extract struct_extract_at
struct_insert struct_keys struct_pack struct_update struct_values to_json
"""
_AGGREGATES = """
any_value approx_count_distinct approx_quantile approx_top_k arbitrary arg_max arg_max_null arg_min arg_min_null argmax
argmin array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count count_star countif covar_pop covar_samp entropy
favg first fsum geomean geometric_mean group_concat histogram histogram_exact kahan_sum kurtosis kurtosis_pop last list
listagg mad max max_by mean median min min_by mode product quantile quantile_cont quantile_disc regr_avgx regr_avgy
regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy reservoir_quantile sem skewness stddev
stddev_pop stddev_samp string_agg sum sumkahan var_pop var_samp variance wavg weighted_avg
cume_dist dense_rank fill first_value lag last_value lead nth_value ntile percent_rank rank rank_dense row_number
"""
_TABLES = "duckdb_columns duckdb_functions duckdb_tables duckdb_views generate_series pragma_table_info range unnest"
_VECTOR_MACROS = (
    "nearest",
    "nearest_exact",
    "like_object",
    "concept",
    "embed",
    "vote",
)  # per embedding; without its name for pictures
_OURS = "concept cone embed matching_words separation_arcsec terms_of nearest nearest_exact like_object"
EMBED = "embed"  # the vector of words in the main embedding; for another one `embed_<its name>`
FUNCTIONS = frozenset(" ".join((_MATH, _LOGIC, _TEXT, _TIME, _NESTED, _AGGREGATES, _TABLES, _OURS)).lower().split())
SYSTEM_TABLES = frozenset({"duckdb_columns", "duckdb_tables", "duckdb_views"})
SHOWN = frozenset({"", '"tables"', '"variables"'})  # what SHOW may name beside a table of the atlas


def macros(embeddings: Iterable[str]) -> frozenset[str]:
    """Return the names of the macros that an atlas has for its embeddings, in lower case."""
    named = {f"{macro}_{name}".lower() for macro in _VECTOR_MACROS for name in embeddings}
    return frozenset({"vote", *named})  # which only an atlas with knowledge bases has


def check(
    tree: list[dict], *, macros: frozenset[str], system_tables: frozenset[str], title: str
) -> list[tuple[str, str]]:
    """Return the functions `embed` or `embed_<embedding>` in the syntax trees of a statement, each with its text.

    `macros` are the names of the atlas's own, `system_tables` those of DuckDB. Raises QueryError for a function or a
    table that is not allowed, and for an `embed` of anything but a text that is written out.
    """
    texts: list[tuple[str, str]] = []
    left: list[dict | list] = list(tree)
    while left:
        node = left.pop()
        if isinstance(node, dict):
            _check_node(node, macros, system_tables, title)
            name = node.get("function_name", "").lower()
            if name == EMBED or name.startswith(f"{EMBED}_"):
                texts.append((name, _text_of(node, title)))
            left.extend(value for value in node.values() if isinstance(value, (dict, list)))
        else:
            left.extend(value for value in node if isinstance(value, (dict, list)))
    return texts


def _check_node(node: dict, macros: frozenset[str], system_tables: frozenset[str], title: str) -> None:
    name = str(node.get("function_name", "")).lower()
    is_call = name or node.get("class") in ("FUNCTION", "WINDOW")  # one without a name would be a tree we cannot read
    if is_call and name not in FUNCTIONS and name not in macros:
        raise QueryError(
            f"{title}: the function {name[:60]} is not among those that a visitor may use; open the atlas on your own "
            "machine, where all are"
        )
    if node.get("type") == "BASE_TABLE":
        table, where = (
            str(node.get("table_name", ".")).lower(),
            (node.get("catalog_name", ""), node.get("schema_name", "")),
        )
        foreign = where[0].lower() not in ("", "atlas") or where[1].lower() not in ("", "main", "atlas")
        if foreign or (table in system_tables and table not in SYSTEM_TABLES):
            raise QueryError(f"{title}: the table {table[:60]} is not one of the atlas; list those with SHOW TABLES")
    if node.get("type") == "SHOW_REF" and str(node.get("table_name", "")).lower() == '"databases"':
        raise QueryError(f"{title}: there is one database, the atlas; list its tables with SHOW TABLES")


def _text_of(node: dict, title: str) -> str:
    """Return the text that stands in `embed('…')`; DuckDB 1 and 2 write their trees differently."""
    given = [one["expression"] for one in node["arguments"]] if "arguments" in node else node.get("children", [])
    constant = given[0] if len(given) == 1 and given[0].get("class") == "CONSTANT" else {}
    literal, value = constant.get("literal") or {}, constant.get("value") or {}
    text = literal.get("text") if literal.get("kind") == "STRING" else value.get("value")
    if not isinstance(text, str):
        raise QueryError(
            f"{title}: embed() takes one text that is written out, such as embed('ring galaxy'); the vectors of the "
            "phrases of the atlas are in the table concepts"
        )
    return text
