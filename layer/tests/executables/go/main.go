// A Go program whose sockets and children are looked at from outside.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func run(words []string) error {
	switch words[0] {
	case "serve":
		return serve(words[1])
	case "call":
		return call(words[1])
	case "datagrams":
		return datagrams(words[1])
	case "itself":
		path, err := os.Executable()
		fmt.Println(path)
		return err
	case "children":
		return children()
	case "crowd":
		return crowd(words[1])
	}
	return fmt.Errorf("what is %s?", words[0])
}

func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("listens", listener.Addr())
	connection, err := listener.Accept()
	if err != nil {
		return err
	}
	fmt.Println("accepted", connection.RemoteAddr(), "at", connection.LocalAddr())
	return connection.Close()
}

func call(address string) error {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("peer", connection.RemoteAddr())
	if _, err = connection.Write([]byte("ping")); err != nil {
		return err
	}
	answer := make([]byte, 4)
	_, err = io.ReadFull(connection, answer)
	fmt.Println("heard", string(answer))
	return err
}

func datagrams(address string) error {
	remote, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return err
	}
	socket, err := net.ListenUDP("udp", nil)
	if err != nil {
		return err
	}
	if _, err = socket.WriteTo([]byte("ping"), remote); err != nil {
		return err
	}
	answer := make([]byte, 100)
	count, from, err := socket.ReadFrom(answer)
	fmt.Println("from", from, string(answer[:count]))
	return err
}

// Each of them gets an environment of its own.
func children() error {
	_, err := os.StartProcess("/nonexistent", []string{"nothing"}, &os.ProcAttr{})
	fmt.Println(err)
	for range make([]bool, 3) {
		child := exec.Command("/usr/bin/env")
		child.Env = []string{"OWN=1"}
		output, err := child.Output()
		if err != nil {
			return err
		}
		for _, line := range strings.Split(string(output), "\n") {
			name, _, _ := strings.Cut(line, "=")
			fmt.Print(name, " ")
		}
		fmt.Println()
	}
	return nil
}

// Many goroutines connect to their own listener, while they are preempted and collected.
func crowd(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(connection, connection)
				connection.Close()
			}()
		}
	}()
	stop := make(chan bool)
	for range make([]bool, 4) {
		go busy(stop)
	}
	errors := make(chan error, 2000)
	var group sync.WaitGroup
	for number := 0; number < cap(errors); number++ {
		group.Add(1)
		go func() {
			defer group.Done()
			errors <- meet(listener.Addr().(*net.TCPAddr).Port)
		}()
		if number%100 == 0 {
			group.Wait()
		}
	}
	group.Wait()
	close(stop)
	met := 0
	for range make([]bool, cap(errors)) {
		if err := <-errors; err != nil {
			return err
		}
		met++
	}
	fmt.Println("met", met)
	return nil
}

func busy(stop chan bool) {
	for sum := 0; ; {
		select {
		case <-stop:
			return
		default:
		}
		for number := 0; number < 1000000; number++ {
			sum += number
		}
		runtime.GC()
	}
}

func meet(port int) error {
	connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer connection.Close()
	if seen := connection.RemoteAddr().(*net.TCPAddr).Port; seen != port {
		return fmt.Errorf("port %d is seen as %d", port, seen)
	}
	if _, err = connection.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = io.ReadFull(connection, make([]byte, 5))
	return err
}
