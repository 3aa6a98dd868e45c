/*
 * Checks of what a pattern found: check digits, lengths by country, ranges that are not in use.
 * Each takes the match's own bytes (separators included) and knows nothing else.  Pure.
 */
#ifndef NEXUS_FILTER_VALIDATE_INTERNAL_H
#define NEXUS_FILTER_VALIDATE_INTERNAL_H

#include "base/str.h"

typedef bool filter_check(str match);

filter_check check_email;       /* lengths of its parts, no two dots */
filter_check check_card;        /* issuer, length, Luhn */
filter_check check_iban;        /* country's length, mod 97 */
filter_check check_phone;       /* 8 to 15 digits, not all the same */
filter_check check_nanp;        /* North America: area and exchange from 2 */
filter_check check_us_ssn;      /* ranges never given out */
filter_check check_de_tax_id;   /* mod 11,10 and the rule on repeated digits */
filter_check check_fr_nir;      /* mod 97, Corsica */
filter_check check_es_dni;      /* letter mod 23; NIE */
filter_check check_it_fiscal;   /* codice fiscale: check letter */
filter_check check_uk_nino;     /* prefixes in use */
filter_check check_br_cpf;      /* two check digits */
filter_check check_pl_pesel;    /* date, weights */
filter_check check_nl_bsn;      /* eleven test */
filter_check check_se_personal; /* date, Luhn */
filter_check check_fi_hetu;     /* date, mod 31 */
filter_check check_no_birth;    /* date, two check digits */
filter_check check_be_national; /* mod 97 */
filter_check check_ch_ahv;      /* EAN-13 */
filter_check check_in_aadhaar;  /* Verhoeff */
filter_check check_ca_sin;      /* Luhn */
filter_check check_cn_resident; /* date, mod 11-2 */
filter_check check_kr_rrn;      /* date, mod 11 */
filter_check check_mixed;       /* letters and digits both: a token, not a word */

#endif
