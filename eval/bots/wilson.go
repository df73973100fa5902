package main

import (
	"fmt"
	"math"
)

// wilson is the 95 % interval of a rate by E. B. Wilson's score method (1927): unlike the normal
// one it says something where k is 0 or n.
func wilson(k, n int) (low, high float64) {
	if n == 0 {
		return 0, 1
	}
	const z = 1.959964
	p, m := float64(k)/float64(n), float64(n)
	middle, half := p+z*z/(2*m), z*math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return max(0, (middle-half)/(1+z*z/m)), min(1, (middle+half)/(1+z*z/m))
}

// rate is how the tables tell k of n.
func rate(k, n int) string {
	if n == 0 {
		return "–"
	}
	low, high := wilson(k, n)
	return fmt.Sprintf("%.0f %% (%.0f–%.0f)", 100*float64(k)/float64(n), 100*low, 100*high)
}
