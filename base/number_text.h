/* number_text.h: numbers as people read them. Values are returned by value: text_si(n, "").s lives to the end of the full
 * expression, enough for one fprintf. NaN is "–" everywhere: not known. The spaces in them do not break. */
#ifndef WINNOW_BASE_NUMBER_TEXT_H
#define WINNOW_BASE_NUMBER_TEXT_H

typedef struct number_text {
	char s[48];
} number_text;

/* Three significant digits and a prefix: 7760448, "" -> "7.76 M"; 0.0031, "J" -> "3.10 mJ"; 0.00002, "kWh" -> "2.00e-05 kWh"
 * (only J and W know parts); whole numbers below 1000 stay: "16". */
number_text text_si(double v, const char *unit);
number_text text_ms(double v);                   /* "1.04 ms" */
number_text text_share(double v);                /* 0.8812 -> "88.1 %" */
number_text text_points(double v);               /* difference of shares: -0.0081 -> "−0.8 points" */
number_text text_ratio(double v);                /* "18.1×" */
number_text text_fixed(double v, int decimals);
number_text text_difference(double v, int decimals); /* signed */
number_text text_seconds(double v);              /* "45 s", "3.2 min", "1.6 h" */
number_text text_mean_sd(double mean, double sd, int decimals); /* "88.1 ± 0.4"; sd NaN: "88.1" */

#endif
